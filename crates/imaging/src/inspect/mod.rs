//! The look at an image's first bytes, before anything is written: what it is, and whether it may be (data plane page, 1.8).
//!
//! Writing a qcow2 file as if it were raw leaves a disk that does not boot, and taking for raw what is something else is how
//! files of a host leak. What is refused names its [`Rule`]. Pure.

mod foreign;
mod kind;
mod rules;
pub(crate) mod sectors;
mod table;

use foreign::Foreign;
pub use kind::Kind;
pub(crate) use kind::LOOK;
pub use rules::{Refusal, Rule};

use crate::compressed::{Compression, DecoderMemory};
use crate::error::Error;
use crate::format::Format;

/// What an operator and a conductor say about the look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// The names of the formats that may be written (`permitted_image_formats`). What is declared raw needs no permission.
    pub permitted: Vec<String>,
    /// Whether to look (not `disable_deep_image_inspection`). Without it the bytes alone decide what the image is, and only
    /// what can not be written at all is refused.
    pub inspect: bool,
    /// Whether the image is a whole disk. A partition may hold an encrypted volume, and has no partition table of its own.
    pub whole_disk: bool,
    /// What is asked of the image's partition table. Whether it suits the disk is for the caller to look at afterwards.
    pub table: TableCheck,
}

/// What is asked of a partition table before a byte is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableCheck {
    /// A table that is found is held to the rules, unless the image is declared raw.
    Rules,
    /// There may be none: a boot sector is not held to the rules of tables, and an encrypted volume may take the whole disk.
    Optional,
    /// As `Rules`, and an image that is seen to have none is refused.
    Required,
}

impl Default for Checks {
    fn default() -> Self {
        let permitted = ["raw", "gpt", "qcow2"].map(str::to_owned).into();
        Self { permitted, inspect: true, whole_disk: true, table: TableCheck::Rules }
    }
}

/// An image that may be written, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) kind: Kind,
    /// What is around it.
    pub(crate) compression: Option<Compression>,
    /// The first bytes of what is inside that, where it is compressed.
    pub(crate) inside: Option<Vec<u8>>,
}

/// Looks at `first`, the first bytes of the published file: [`LOOK`] of them, or all there are. `memory` bounds a decompressor.
///
/// # Errors
/// [`Error::Refused`], and those of decompressing.
pub(crate) fn accept(
    declared: Format,
    checks: &Checks,
    first: &[u8],
    memory: DecoderMemory,
) -> Result<Accepted, Error> {
    let compression = Compression::detect(first);
    let inside = compression.map(|compression| compression.peek(first, LOOK, memory)).transpose()?;
    let kind = judge(declared, checks, compression, inside.as_deref().unwrap_or(first))?;
    Ok(Accepted { kind, compression, inside })
}

/// Judges the first bytes of a disk, which came out of `compression`.
///
/// # Errors
/// The rule that is broken.
pub(crate) fn judge(
    declared: Format,
    checks: &Checks,
    compression: Option<Compression>,
    head: &[u8],
) -> Result<Kind, Refusal> {
    suits_nothing_else(compression, head)?;
    let found = Kind::all(head);
    if let Some(compression) = compression {
        suits_compression(declared, compression, &found)?;
    }
    let kind = match declared {
        Format::Raw => trusted(checks, &found)?,
        Format::Detect | Format::Qcow2 | Format::Iso => examined(declared, checks, &found, head)?,
    };
    if kind.is_plain() {
        has_table(checks, head)?;
    }
    Ok(kind)
}

/// Refuses the first bytes of a disk that has no partition table, where it must have one and enough of it is to be seen.
///
/// # Errors
/// [`Rule::TableMissing`].
pub(crate) fn has_table(checks: &Checks, head: &[u8]) -> Result<(), Refusal> {
    if checks.table != TableCheck::Required || head.len() < table::SEEN || table::may_be_there(head) {
        return Ok(());
    }
    let detail = "it has none, and the config drive needs one; publish an image with a table, or leave out the config drive";
    Err(Rule::TableMissing.broken(detail.into()))
}

/// What is an archive or compressed in a way that is not unpacked is no disk, whatever it is declared to be.
fn suits_nothing_else(compression: Option<Compression>, head: &[u8]) -> Result<(), Refusal> {
    if let Some(outer) = compression {
        let inner = Compression::detect(head).map(|inner| format!("a {inner} file; compress the disk once"));
        let foreign = || Foreign::of(head).map(|foreign| format!("{}; {}", foreign.name, foreign.advice));
        return match inner.or_else(foreign) {
            None => Ok(()),
            Some(what) => Err(Rule::RawInside.broken(format!("the {outer} file holds {what}"))),
        };
    }
    match Foreign::of(head) {
        None => Ok(()),
        Some(foreign) => {
            Err(Rule::WritableFormat.broken(format!("it is {}; {}", foreign.name, foreign.advice)))
        }
    }
}

/// What is compressed is a raw disk, and can be declared as nothing else.
fn suits_compression(declared: Format, compression: Compression, found: &[Kind]) -> Result<(), Refusal> {
    if matches!(declared, Format::Qcow2 | Format::Iso) {
        let detail = format!("it is declared {declared} but is {compression}: declare it raw");
        return Err(Rule::DeclaredFormat.broken(detail));
    }
    match found.iter().find(|kind| !kind.is_plain()) {
        None => Ok(()),
        Some(kind) => {
            let detail = format!(
                "the {compression} file holds a {kind} image: publish the {kind} image as it is{}",
                convert(*kind)
            );
            Err(Rule::RawInside.broken(detail))
        }
    }
}

/// What is declared raw is taken at its word, as Ironic's agent does, unless it can not be meant.
fn trusted(checks: &Checks, found: &[Kind]) -> Result<Kind, Refusal> {
    let plain = |kind: &Kind| {
        kind.is_plain()
            || (*kind == Kind::Luks && (!checks.whole_disk || checks.table == TableCheck::Optional))
    };
    match found.iter().find(|kind| !plain(kind)) {
        None => Ok(Kind::Raw),
        Some(kind) => {
            let detail =
                format!("it is declared raw but is {kind}: declare its real format{}", convert(*kind));
            Err(Rule::DeclaredFormat.broken(detail))
        }
    }
}

fn examined(declared: Format, checks: &Checks, found: &[Kind], head: &[u8]) -> Result<Kind, Refusal> {
    let kind = match found {
        [] => Kind::Raw,
        [kind] => *kind,
        // Whatever else it is, a disk's bytes are a disk's bytes.
        [..] if !checks.inspect && found.iter().all(|kind| kind.is_plain()) => Kind::Raw,
        [..] => {
            let names: Vec<_> = found.iter().map(|kind| kind.name()).collect();
            let detail = format!(
                "it is {} at the same time: declare it raw if its bytes are to be written as they are",
                names.join(" and ")
            );
            return Err(Rule::OneFormat.broken(detail));
        }
    };
    if checks.inspect {
        if kind == Kind::Gpt && checks.table != TableCheck::Optional {
            table::check(head)?;
        }
        if !checks.permitted.iter().any(|name| name == kind.name()) {
            let detail =
                format!("it is {kind}, and permitted are {}{}", checks.permitted.join(", "), convert(kind));
            return Err(Rule::PermittedFormat.broken(detail));
        }
        let suits = match declared {
            Format::Detect => true,
            Format::Qcow2 => kind == Kind::Qcow2,
            Format::Iso => kind == Kind::Iso,
            Format::Raw => kind.is_plain(),
        };
        if !suits {
            let detail = format!("it is declared {declared} but is {kind}: declare its real format");
            return Err(Rule::DeclaredFormat.broken(detail));
        }
    }
    match kind.is_plain() || kind == Kind::Qcow2 {
        true => Ok(kind),
        false => Err(Rule::WritableFormat.broken(format!("it is {kind}{}", convert(kind)))),
    }
}

/// What to do about a format that can not be written.
fn convert(kind: Kind) -> String {
    match kind {
        Kind::Raw | Kind::Gpt | Kind::Iso | Kind::Qcow2 => String::new(),
        Kind::Luks => "; publish the disk unencrypted".into(),
        Kind::Vhd => "; convert it with `qemu-img convert -f vpc -O qcow2`".into(),
        Kind::Qed | Kind::Vhdx | Kind::Vmdk | Kind::Vdi => {
            format!("; convert it with `qemu-img convert -f {kind} -O qcow2`")
        }
    }
}

#[cfg(test)]
mod tests;
