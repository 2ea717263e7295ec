//! What format an image has, by its first bytes: for requests that declare none.

use events::Events;

use crate::buffer::Pool;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::format::{DETECT_BYTES, Detected, Format};
use crate::pipeline::Interrupt;
use crate::request::{Proxies, Transport};
use crate::source::Source;

/// How much is read before looking; the rest of the body is hung up on.
const LOOK: usize = 64 * 1024;

const _: () = assert!(LOOK >= DETECT_BYTES);

/// Opens the image and looks at its first bytes. Blocks; retries as an image write does.
///
/// # Errors
/// As [`crate::write_image`] for its download.
pub fn detect_format(
    sources: &[String],
    transport: &Transport,
    authorization: Option<&wire::Secret>,
    proxies: &Proxies,
) -> Result<Detected, Error> {
    let events = Events::new(1);
    let cancel = Cancel::new();
    let runtime = crate::pipeline::runtime()?;
    let result = runtime.block_on(async {
        let mut source = Source::new(sources, authorization, proxies, transport, &events, &cancel)?;
        match look(&mut source, &cancel).await {
            Ok(detected) => Ok(detected),
            Err(Interrupt::Failed(error)) => Err(error),
            Err(Interrupt::HungUp) => Err(Error::Pipeline("the look at the image was hung up")),
            Err(Interrupt::Restart(_)) => Err(Error::Unresumable { url: source.name(), restarts: 0 }),
        }
    });
    runtime.shutdown_background();
    result
}

async fn look(source: &mut Source<'_>, cancel: &Cancel) -> Result<Detected, Interrupt> {
    source.open().await?;
    let pool = Pool::new(1, LOOK);
    let mut buffer = pool.take(cancel)?;
    source.fill(&mut buffer).await?;
    Ok(Format::detect(&buffer))
}
