//! An image from a URL onto a disk: streamed, verified, in one pass and in bounded memory.
//!
//! ```text
//! source (retry, resume) -> chunks -> format guard, decoder -> pieces -> hold-back -> BlockSink
//!  network thread             \       decoding thread                     calling thread
//!                              -> digest, on the hashing thread
//! ```
//!
//! [`write_image`] is the whole story. There is no temporary file. The disk is invalidated first (both ends zeroed), and
//! its first MiB is written last, after the digest over the published bytes matched, and the signature where one is asked
//! for: whatever fails in between leaves a
//! disk that does not boot. The crate knows no disks, only [`BlockSink`]; which disk may be written is decided above.
//! Blocking, for a thread of its own; the network runs on a small runtime inside.

mod buffer;
mod cancel;
mod client;
mod compressed;
mod digest;
mod draft;
mod error;
mod format;
mod hold_back;
mod inspect;
mod oci;
mod pipeline;
mod preflight;
mod progress;
mod proof;
mod qcow2;
mod raw;
mod read_back;
mod request;
mod signature;
mod sink;
mod small;
mod source;
mod translate;
mod write;

pub use cancel::Cancel;
pub use client::{HttpError, percent_decoded};
pub use compressed::{Compression, DecoderMemory};
pub use digest::{Algorithm, DigestError, ExpectedDigest};
pub use error::{Error, ErrorKind};
pub use format::{Format, FormatError};
pub use inspect::{Checks, Kind, Refusal, Rule, TableCheck};
pub use oci::{OciImage, OciReference, resolve_oci};
pub use preflight::{Peek, Preflight};
pub use qcow2::Qcow2Error;
pub use request::{ImageRequest, Proxies, Transport, Written};
pub use signature::{ExpectedSignature, KeyId, PublicKey, SignatureError, TrustedKeys};
pub use sink::{BlockSink, DeviceSink, FrailSink, MemorySink, NullSink, Slice, Trouble};
pub use small::{SmallFile, fetch_into, fetch_small};
pub use translate::{Draft, Translate};
pub use write::write_image;
