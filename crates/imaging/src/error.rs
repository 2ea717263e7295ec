//! What can go wrong between a URL and a disk.
//!
//! One enum for the crate. Each text names the operation and its operands; the cause is the error's source, and
//! [`Error::report`] prints the whole chain. [`Error::kind`] is what callers decide by.

use std::io;
use std::path::PathBuf;

use events::Phase;

use crate::client::HttpError;
use crate::compressed::{Compression, DecoderMemory};
use crate::digest::Algorithm;
use crate::inspect::{Refusal, Rule};
use crate::qcow2::Qcow2Error;
use crate::signature::KeyId;
use crate::sink::Located;

/// What callers decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself or the local set-up can not work (bad URL, unreadable CA file).
    Request,
    /// The image could not be fetched, though trying again later may help.
    Download,
    /// The image did not arrive in the time that it may take.
    Timeout,
    /// The image can not be fetched from any source; trying again will not help (4xx).
    DownloadFatal,
    /// All bytes arrived, and they are not the image that was asked for.
    ChecksumMismatch,
    /// All bytes arrived with the right digest, and they are not what was signed.
    SignatureMismatch,
    /// The image is not what it is declared to be, is damaged, or uses what is refused.
    InvalidImage,
    /// The image is larger than the disk.
    OutOfSpace,
    /// The disk could not be opened, read or written.
    Write,
    /// The caller asked to stop.
    Cancelled,
}

/// A failed image write or fetch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source is no URL that can be fetched.
    #[error("source {url}: {reason}")]
    Source {
        /// The URL as far as it may be shown.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("setting up TLS")]
    Tls(#[source] tls::Error),
    /// An `https:` source, and nobody to trust.
    #[error(
        "the system has no bundle of trusted authorities: give a CA file (option cafile), or allow insecure connections"
    )]
    NoTrust,
    /// A registry holds something else than a disk image, or does not give it out.
    #[error("{reference}: {reason}")]
    Registry {
        /// The reference.
        reference: String,
        /// What is in the way.
        reason: String,
    },
    /// A proxy that cannot be used.
    #[error("proxy {proxy}: {reason}")]
    Proxy {
        /// The proxy, without its password.
        proxy: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A request failed below HTTP: name resolution, connecting, TLS, a broken connection.
    #[error("fetching {url} at offset {offset}")]
    Fetch {
        /// The URL, without credentials.
        url: String,
        /// Offset of the first byte that is missing.
        offset: u64,
        /// What failed.
        #[source]
        source: HttpError,
    },
    /// No byte came for the whole read time limit.
    #[error("fetching {url} at offset {offset}: nothing came for {seconds} s")]
    Stalled {
        /// The URL, without credentials.
        url: String,
        /// Offset of the first byte that is missing.
        offset: u64,
        /// The limit that passed.
        seconds: u64,
    },
    /// The body comes, but so slowly that it would never be done.
    #[error("fetching {url} at offset {offset}: no more than {bytes} bytes came in {seconds} s")]
    Slow {
        /// The URL, without credentials.
        url: String,
        /// Offset of the first byte that is missing.
        offset: u64,
        /// What came.
        bytes: u64,
        /// The time that passed.
        seconds: u64,
    },
    /// The body ended before its announced length.
    #[error("fetching {url}: the transfer ended at offset {offset} of {total}")]
    Cut {
        /// The URL, without credentials.
        url: String,
        /// Offset of the first byte that is missing.
        offset: u64,
        /// The announced length.
        total: u64,
    },
    /// The server answered with a status that is no success.
    #[error("fetching {url}: the server answered {status}")]
    Status {
        /// The URL, without credentials.
        url: String,
        /// HTTP status code.
        status: u16,
    },
    /// The server's answer breaks what was asked for.
    #[error("fetching {url}: {reason}")]
    Answer {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What came could not be continued, more often than the write may start over.
    #[error(
        "fetching {url}: the image could not be resumed and the write started over {restarts} times; at last: {reason}"
    )]
    Unresumable {
        /// The URL, without credentials.
        url: String,
        /// Why it could not be continued the last time.
        reason: String,
        /// How often it started over.
        restarts: u32,
    },
    /// A `file:` source could not be read.
    #[error("reading {} at offset {offset}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A small file is larger than the caller allows.
    #[error("fetching {url}: it is larger than the limit of {limit} bytes")]
    TooLong {
        /// The URL, without credentials.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// What was fetched could not be written to its file.
    #[error("writing what comes from {url}")]
    Store {
        /// The URL, without credentials.
        url: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Every source failed; the last one's failure is the source.
    #[error("none of the {count} sources of the image worked ({earlier}); the last one")]
    AllSources {
        /// How many were tried.
        count: usize,
        /// The failures before the last.
        earlier: String,
        /// The last failure.
        #[source]
        last: Box<Error>,
    },
    /// The image breaks a rule; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A compressed image that does not decompress.
    #[error("the {compression} image breaks off or is damaged after {offset} bytes of the disk")]
    Decompress {
        /// The compression.
        compression: Compression,
        /// Bytes of the disk that came out before.
        offset: u64,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// A compressed image asks for more memory than it may have.
    #[error(
        "the {compression} image needs {} MiB of memory to decompress and may take {memory}: allow more \
         (image_decoder_memory in MiB, kernel parameter ferric-image-decoder-memory, `ferric-agent write --memory`), or \
         compress the image with {advice}",
        needed.div_ceil(1 << 20)
    )]
    DecoderMemory {
        /// The compression.
        compression: Compression,
        /// What it needs, in bytes.
        needed: u64,
        /// What it may take.
        memory: DecoderMemory,
        /// What to compress with.
        advice: &'static str,
    },
    /// A qcow2 image that is refused or damaged.
    #[error("qcow2 image at offset {offset}")]
    Qcow2 {
        /// Offset in the published file.
        offset: u64,
        /// The rule that it breaks.
        #[source]
        source: Qcow2Error,
    },
    /// The image does not fit.
    #[error("the image needs {image} bytes and the disk has {disk}: choose a larger disk or a smaller image")]
    TooLarge {
        /// Size of the disk image in bytes (at least).
        image: u64,
        /// Size of the disk in bytes.
        disk: u64,
    },
    /// The image has no bytes.
    #[error("the image is empty")]
    Empty,
    /// All bytes came, and they are not the image that was asked for.
    #[error(
        "the image's {algorithm} digest is {actual}, expected {expected} ({bytes} bytes): the disk's first MiB stays zeroed, \
         so the disk does not boot; check the published checksum and the image, then deploy again"
    )]
    Mismatch {
        /// The algorithm.
        algorithm: Algorithm,
        /// What was asked for, in hex.
        expected: String,
        /// What came, in hex.
        actual: String,
        /// How many bytes came.
        bytes: u64,
    },
    /// A registry has another image than the one that was asked for.
    #[error(
        "{source_name}: the registry's image has the digest {promised}, expected {expected}: check the reference and the \
         published checksum"
    )]
    Promise {
        /// The reference.
        source_name: String,
        /// What its manifest says.
        promised: String,
        /// What was asked for.
        expected: String,
    },
    /// All bytes came, and they are not what the key signed.
    #[error(
        "the image is not what the key {key} signed, though its digest matches ({bytes} bytes): the disk's first MiB stays \
         zeroed, so the disk does not boot; sign the image as it is published, then deploy again"
    )]
    Signature {
        /// The key.
        key: KeyId,
        /// How many bytes came.
        bytes: u64,
    },
    /// The disk could not be opened.
    #[error("opening disk {}", path.display())]
    OpenDisk {
        /// The device.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk could not be written.
    #[error("{operation} disk at offset {offset}, {length} bytes")]
    Disk {
        /// `writing`, `zeroing`, `clearing`, `flushing`, `reading`.
        operation: &'static str,
        /// Offset on the disk.
        offset: u64,
        /// Length of the failed operation.
        length: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk does not give back what was written to it.
    #[error(
        "the disk does not give back what was written to it, in the {length} bytes from offset {offset}: \
         replace the disk or its controller, and deploy again"
    )]
    ReadBack {
        /// Offset of the region on the disk.
        offset: u64,
        /// Its length.
        length: u64,
    },
    /// The whole transfer took too long.
    #[error(
        "fetching {url}: not done after {seconds} seconds, with {offset} bytes read; option image_download_max_duration sets the limit"
    )]
    TooSlow {
        /// The source in use, without credentials.
        url: String,
        /// Bytes that had arrived.
        offset: u64,
        /// The limit.
        seconds: u64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A part of the pipeline ended without saying why: a defect.
    #[error("the image pipeline stopped: {0}")]
    Pipeline(&'static str),
    /// It failed while the disk's old contents were being invalidated; nothing of the image was written.
    #[error(
        "the disk's old contents could not be cleared away, so it may still boot the old system, or nothing: deploy it \
         again, or replace the disk"
    )]
    NotCleared(#[source] Box<Error>),
    /// It failed after the disk's old contents were invalidated.
    #[error(
        "the image was not written: the disk's first MiB stays zeroed, so the disk does not boot; deploy it again"
    )]
    Unbootable(#[source] Box<Error>),
}

impl Error {
    /// What callers decide by.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Source { .. } | Error::Tls(_) | Error::NoTrust | Error::Proxy { .. } => ErrorKind::Request,
            Error::Fetch { .. }
            | Error::Stalled { .. }
            | Error::Slow { .. }
            | Error::Cut { .. }
            | Error::Unresumable { .. }
            | Error::File { .. }
            | Error::Pipeline(_) => ErrorKind::Download,
            Error::Status { status, .. } if is_fatal_status(*status) => ErrorKind::DownloadFatal,
            Error::Status { .. } => ErrorKind::Download,
            Error::Answer { .. } | Error::TooLong { .. } | Error::Registry { .. } => ErrorKind::DownloadFatal,
            Error::AllSources { last, .. } | Error::Unbootable(last) | Error::NotCleared(last) => last.kind(),
            Error::Refused(_)
            | Error::Decompress { .. }
            | Error::DecoderMemory { .. }
            | Error::Qcow2 { .. }
            | Error::Empty => ErrorKind::InvalidImage,
            Error::TooLarge { .. } => ErrorKind::OutOfSpace,
            Error::Mismatch { .. } | Error::Promise { .. } => ErrorKind::ChecksumMismatch,
            Error::Signature { .. } => ErrorKind::SignatureMismatch,
            Error::OpenDisk { .. } | Error::Disk { .. } | Error::ReadBack { .. } | Error::Store { .. } => {
                ErrorKind::Write
            }
            Error::TooSlow { .. } => ErrorKind::Timeout,
            Error::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Makes an error of the disk a named one. Where the disk says itself what failed and where, that counts: it may have been
    /// an earlier write.
    pub(crate) fn disk(operation: &'static str, offset: u64, length: u64) -> impl FnOnce(io::Error) -> Self {
        move |error| match Located::of(error) {
            Ok(Located { operation, offset, length, source }) => {
                Error::Disk { operation, offset, length, source }
            }
            Err(source) => Error::Disk { operation, offset, length, source },
        }
    }

    /// The rule that the image breaks, where it is refused by one.
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Error::Refused(refusal) => Some(refusal.rule),
            Error::Qcow2 { source, .. } => source.rule(),
            Error::AllSources { last, .. } | Error::Unbootable(last) => last.rule(),
            _ => None,
        }
    }

    /// Whether damage in transfer can look like this, so that the digest decides what to tell.
    pub(crate) fn may_be_damage(&self) -> bool {
        match self {
            Error::Qcow2 { source, .. } => source.may_be_damage(),
            Error::Decompress { .. } | Error::DecoderMemory { .. } => true,
            _ => false,
        }
    }

    /// The phase that an operator sees as failed.
    pub fn phase(&self) -> Phase {
        match self {
            Error::Unbootable(cause) => match cause.phase() {
                // Whatever went wrong, it went wrong while the image was being written.
                Phase::Open => Phase::Write,
                phase => phase,
            },
            Error::Mismatch { .. } | Error::Signature { .. } | Error::ReadBack { .. } => Phase::Verify,
            Error::Disk { .. }
            | Error::NotCleared(_)
            | Error::Cut { .. }
            | Error::Stalled { .. }
            | Error::Slow { .. }
            | Error::TooSlow { .. }
            | Error::Pipeline(_) => Phase::Write,
            _ => Phase::Open,
        }
    }

    /// Whether the disk was invalidated: its first MiB is zeroed and it does not boot.
    pub fn left_disk_unbootable(&self) -> bool {
        matches!(self, Error::Unbootable(_) | Error::Mismatch { .. } | Error::Signature { .. })
    }

    /// The text with all its causes, on one line.
    pub fn report(&self) -> String {
        tls::chain(self)
    }

    /// Marks a failure that came after the disk was invalidated.
    pub(crate) fn unbootable(self) -> Self {
        let says_so = self.left_disk_unbootable() || matches!(self, Error::NotCleared(_));
        if says_so { self } else { Error::Unbootable(Box::new(self)) }
    }
}

/// A status that a second try will not change. 408 and 429 ask for patience, as 5xx does.
pub(crate) fn is_fatal_status(status: u16) -> bool {
    !(status == 408 || status == 429 || (500..600).contains(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_every_cause_and_kinds_pass_through() {
        let error = Error::Disk {
            operation: "writing",
            offset: 1_048_576,
            length: 4096,
            source: io::Error::other("medium error"),
        }
        .unbootable();
        assert!(error.left_disk_unbootable());
        assert_eq!(error.kind(), ErrorKind::Write);
        let report = error.report();
        assert!(report.contains("does not boot"), "{report}");
        assert!(report.ends_with("writing disk at offset 1048576, 4096 bytes: medium error"), "{report}");
        assert_eq!(error.phase(), Phase::Write);
    }

    #[test]
    fn statuses_that_patience_may_change_are_not_fatal() {
        for status in [500, 502, 503, 504, 408, 429] {
            assert!(!is_fatal_status(status));
        }
        for status in [204, 301, 400, 401, 403, 404, 410, 416] {
            assert!(is_fatal_status(status));
        }
    }
}
