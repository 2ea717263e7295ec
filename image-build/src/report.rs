//! What a build tells at its end: `manifest.json` for programs, a table for people.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::kernel::package::Source;

/// One part of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Number of files.
    pub files: u64,
    /// Bytes in the archive, uncompressed.
    pub raw_bytes: u64,
    /// Bytes it takes of the compressed archive.
    pub compressed_bytes: u64,
}

/// One file of the output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputFile {
    /// Its name.
    pub name: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// All there is to tell. Holds no times and no paths of the building machine: the same input gives the same manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Version of `ferric-image`.
    pub ferric_image: &'static str,
    /// Kernel release: `6.1.0-56-amd64`.
    pub kernel_release: String,
    /// The packages the kernel came from.
    pub packages: Vec<Source>,
    /// The packages that the tools and their libraries came from.
    pub tool_packages: Vec<Source>,
    /// SHA-256 of the agent, in hex.
    pub agent_sha256: String,
    /// Number of CA certificates that the agent trusts.
    pub ca_certificates: usize,
    /// Name of the module profile.
    pub profile: &'static str,
    /// Compression and level: `zstd -19`.
    pub compression: String,
    /// The files that were made.
    pub outputs: Vec<OutputFile>,
    /// The initramfs before compression, in bytes: what it takes of the machine's memory, about.
    pub initramfs_raw_bytes: u64,
    /// Parts of the initramfs.
    pub parts: Vec<Part>,
    /// Paths of the modules, below `/lib/modules/RELEASE`.
    pub modules: Vec<String>,
}

impl Manifest {
    /// The table for people.
    pub fn table(&self, folder: &Path) -> String {
        let mut out = String::new();
        // Writing to a String can not fail, so the results of `writeln!` are of no use here.
        let names = |sources: &[Source]| {
            let names = sources.iter().map(|source| format!("{} {}", source.package, source.version));
            names.collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(out, "kernel {} from {}", self.kernel_release, names(&self.packages));
        if !self.tool_packages.is_empty() {
            let _ = writeln!(out, "tools from {}", names(&self.tool_packages));
        }
        let _ = writeln!(out, "CA certificates: {}", self.ca_certificates);
        let _ = writeln!(
            out,
            "profile {}: {} modules; initramfs by {}",
            self.profile,
            self.modules.len(),
            self.compression
        );
        let _ = writeln!(
            out,
            "\n{:<30} {:>6} {:>12} {:>12}",
            "part of the initramfs", "files", "raw", "compressed"
        );
        for part in &self.parts {
            let (raw, compressed) = (size(part.raw_bytes), size(part.compressed_bytes));
            let _ = writeln!(out, "{:<30} {:>6} {raw:>12} {compressed:>12}", part.name, part.files);
        }
        let _ = writeln!(out, "\n{:<30} {:>12}  sha256", "output", "size");
        for file in &self.outputs {
            let _ = writeln!(
                out,
                "{:<30} {:>12}  {}",
                folder.join(file.name).display(),
                size(file.bytes),
                file.sha256
            );
        }
        let total = self.outputs.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        let _ = writeln!(out, "{:<30} {:>12}", "together", size(total));
        out
    }
}

/// A length for people, in decimal units: `8.2 MB`.
pub fn size(bytes: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = bytes.saturating_mul(10).saturating_add(unit / 2) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..999_950 => format!("{} kB", tenths(1_000)),
        _ => format!("{} MB", tenths(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded_to_a_tenth() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_949), "1.9 kB");
        assert_eq!(size(999_949), "999.9 kB");
        assert_eq!(size(999_950), "1.0 MB");
        assert_eq!(size(8_249_000), "8.2 MB");
    }
}
