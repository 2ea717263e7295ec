//! The config drive: decoding what the conductor sends, and putting it onto a disk that has just been written.

mod decode;
mod iso;
mod place;
mod rebuild;

pub use decode::{LIMIT_BYTES, decode};
pub use place::{Placed, place};
pub use rebuild::{Rebuild, suited};
