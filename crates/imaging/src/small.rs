//! Small files by URL: checksum files and config drives. Into memory, with a limit.

use events::Events;

use crate::buffer::Pool;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::pipeline::Interrupt;
use crate::request::{Proxies, Transport};
use crate::source::Source;

/// Bytes read at a time.
const READ: usize = 64 * 1024;

/// Fetches `url` (http, https or file) whole. Blocks; retries and resumes as an image does.
///
/// # Errors
/// [`Error::TooLong`] when it has more than `limit_bytes`; else as [`crate::write_image`] for its download.
pub fn fetch_small(
    url: &str,
    transport: &Transport,
    authorization: Option<&wire::Secret>,
    limit_bytes: u64,
) -> Result<Vec<u8>, Error> {
    let events = Events::new(1);
    let cancel = Cancel::new();
    let runtime = crate::pipeline::runtime()?;
    let result = runtime.block_on(async {
        let urls = [url.to_owned()];
        let mut source = Source::new(&urls, authorization, &Proxies::default(), transport, &events, &cancel)?;
        let mut restarts = 0;
        loop {
            match fetch(&mut source, limit_bytes, &cancel).await {
                Ok(bytes) => return Ok(bytes),
                Err(Interrupt::Failed(error)) => return Err(error),
                Err(Interrupt::HungUp) => return Err(Error::Pipeline("the fetch was hung up")),
                Err(Interrupt::Restart(_)) if restarts < transport.attempts => {
                    restarts += 1;
                    source.restart();
                    tokio::time::sleep(transport.retry_interval).await;
                }
                Err(Interrupt::Restart(_)) => {
                    return Err(Error::Unresumable { url: source.name(), restarts });
                }
            }
        }
    });
    runtime.shutdown_background();
    result
}

async fn fetch(source: &mut Source<'_>, limit: u64, cancel: &Cancel) -> Result<Vec<u8>, Interrupt> {
    let too_long = |source: &Source<'_>| Error::TooLong { url: source.name(), limit };
    if source.open().await?.is_some_and(|total| total > limit) {
        return Err(too_long(source).into());
    }
    let pool = Pool::new(1, READ);
    let mut bytes = Vec::new();
    loop {
        let mut buffer = pool.take(cancel)?;
        source.fill(&mut buffer).await?;
        if (bytes.len() as u64).saturating_add(buffer.len() as u64) > limit {
            return Err(too_long(source).into());
        }
        bytes.extend_from_slice(&buffer);
        if !buffer.is_full() {
            return Ok(bytes);
        }
    }
}
