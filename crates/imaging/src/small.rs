//! Plain files by URL: checksum files and config drives into memory, with a limit; files for a written image into their place.

use std::fs::File;
use std::io::{Seek, Write};

use events::Events;

use crate::buffer::Pool;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::pipeline::Interrupt;
use crate::request::{Proxies, Transport};
use crate::source::Source;

/// Bytes read at a time.
const READ: usize = 64 * 1024;

/// A file that fits into memory, and how to get it.
#[derive(Clone, Copy, Debug)]
pub struct SmallFile<'a> {
    /// Where it is: http, https or file.
    pub url: &'a str,
    /// The complete value of the `Authorization` header.
    pub authorization: Option<&'a wire::Secret>,
    /// Proxies to it.
    pub proxies: &'a Proxies,
    /// The largest size in bytes that is accepted.
    pub limit_bytes: u64,
}

/// Fetches a file whole. Blocks; retries and resumes as an image does.
///
/// # Errors
/// [`Error::TooLong`] when it is larger than it may be; else as [`crate::write_image`] for its download.
pub fn fetch_small(file: &SmallFile<'_>, transport: &Transport, cancel: &Cancel) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    run(file, transport, cancel, &mut |part| {
        match part {
            Part::Start => bytes.clear(),
            Part::Bytes(part) => bytes.extend_from_slice(part),
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Fetches `url` (http, https or file) into an open file, in bounded memory, and returns its length. Blocks; retries and
/// resumes as an image does, and begins the file anew where the source can not resume. The file is not flushed.
///
/// # Errors
/// [`Error::Store`] when the file can not be written; else as [`crate::write_image`] for its download.
pub fn fetch_into(url: &str, transport: &Transport, into: &mut File, cancel: &Cancel) -> Result<u64, Error> {
    let mut length = 0u64;
    let proxies = Proxies::default();
    let file = SmallFile { url, authorization: None, proxies: &proxies, limit_bytes: u64::MAX };
    run(&file, transport, cancel, &mut |part| match part {
        Part::Start => {
            length = 0;
            into.set_len(0)?;
            into.rewind()
        }
        Part::Bytes(part) => {
            length = length.saturating_add(part.len() as u64);
            into.write_all(part)
        }
    })?;
    Ok(length)
}

/// What the fetched bytes are made of.
enum Part<'a> {
    /// What came so far counts for nothing.
    Start,
    Bytes(&'a [u8]),
}

type Take<'a> = dyn FnMut(Part<'_>) -> std::io::Result<()> + 'a;

fn run(
    file: &SmallFile<'_>,
    transport: &Transport,
    cancel: &Cancel,
    take: &mut Take<'_>,
) -> Result<(), Error> {
    let events = Events::new(1);
    let runtime = crate::pipeline::runtime()?;
    let result = runtime.block_on(async {
        let urls = [file.url.to_owned()];
        let mut source = Source::new(&urls, file.authorization, file.proxies, transport, &events, cancel)?;
        let mut restarts = 0;
        loop {
            match fetch(&mut source, file.limit_bytes, cancel, take).await {
                Ok(()) => return Ok(()),
                Err(Interrupt::Failed(error)) => return Err(error),
                Err(Interrupt::HungUp) if cancel.is_cancelled() => return Err(Error::Cancelled),
                Err(Interrupt::HungUp) => return Err(Error::Pipeline("the fetch was hung up")),
                Err(Interrupt::Restart(_)) if restarts < transport.attempts => {
                    restarts += 1;
                    source.restart();
                    source.rest().await?;
                }
                Err(Interrupt::Restart(reason)) => {
                    return Err(Error::Unresumable { url: source.name(), reason, restarts });
                }
            }
        }
    });
    runtime.shutdown_background();
    result
}

async fn fetch(
    source: &mut Source<'_>,
    limit: u64,
    cancel: &Cancel,
    take: &mut Take<'_>,
) -> Result<(), Interrupt> {
    let too_long = |source: &Source<'_>| Error::TooLong { url: source.name(), limit };
    let store = |source: &Source<'_>, error| Error::Store { url: source.name(), source: error };
    if source.open().await?.is_some_and(|total| total > limit) {
        return Err(too_long(source).into());
    }
    take(Part::Start).map_err(|error| store(source, error))?;
    let pool = Pool::new(1, READ);
    let mut length = 0u64;
    loop {
        let mut buffer = pool.take(cancel)?;
        source.fill(&mut buffer).await?;
        length = length.saturating_add(buffer.len() as u64);
        if length > limit {
            return Err(too_long(source).into());
        }
        take(Part::Bytes(&buffer)).map_err(|error| store(source, error))?;
        if !buffer.is_full() {
            return Ok(());
        }
    }
}
