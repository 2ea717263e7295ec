//! The config drive: decoding what the conductor sends, and putting it onto a disk that has just been written.

mod decode;
mod iso;
mod place;
mod plan;
mod rebuild;

pub use decode::{LIMIT_BYTES, decode, decode_within};
pub use place::{Placed, place};
pub use plan::{ImageBytes, Room};
pub use rebuild::{Rebuild, suited};
