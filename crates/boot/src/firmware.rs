//! Which programs the machine's UEFI firmware can start.

use sys::Host;

/// The architecture of the firmware. A 64-bit kernel may run on 32-bit firmware, so the processor alone does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// x86-64.
    X64,
    /// 32-bit x86.
    Ia32,
    /// 64-bit ARM.
    Aa64,
    /// 32-bit ARM.
    Arm,
    /// 64-bit RISC-V.
    RiscV64,
    /// An architecture that is not known here: every loader may be meant for it.
    Other,
}

impl Firmware {
    /// Returns the firmware of this machine: the agent's own architecture, and the width in `/sys/firmware/efi/fw_platform_size`.
    pub fn detect(host: &Host) -> Self {
        let width = host.attribute("/sys/firmware/efi/fw_platform_size");
        Self::of(std::env::consts::ARCH, width.as_deref().map(str::trim))
    }

    fn of(architecture: &str, width: Option<&str>) -> Self {
        match (architecture, width) {
            ("x86" | "x86_64", Some("32")) | ("x86", None) => Self::Ia32,
            ("x86" | "x86_64", _) => Self::X64,
            ("arm" | "aarch64", Some("32")) | ("arm", None) => Self::Arm,
            ("arm" | "aarch64", _) => Self::Aa64,
            ("riscv64", _) => Self::RiscV64,
            _ => Self::Other,
        }
    }

    /// What the names of its files end with, in lower case (UEFI specification, 3.5.1.1); `None` where all may be meant.
    fn suffix(self) -> Option<&'static str> {
        match self {
            Self::X64 => Some("x64"),
            Self::Ia32 => Some("ia32"),
            Self::Aa64 => Some("aa64"),
            Self::Arm => Some("arm"),
            Self::RiscV64 => Some("riscv64"),
            Self::Other => None,
        }
    }

    /// Returns true if a file with this suffix (`x64` of `bootx64.efi`) is made for this firmware.
    pub(crate) fn starts(self, suffix: &str) -> bool {
        self.suffix().is_none_or(|own| own == suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_of_the_firmware_decides_where_the_kernel_names_it() {
        for (architecture, width, expected) in [
            ("x86_64", None, Firmware::X64),
            ("x86_64", Some("64"), Firmware::X64),
            ("x86_64", Some("32"), Firmware::Ia32),
            ("x86", Some("64"), Firmware::X64),
            ("aarch64", Some("64"), Firmware::Aa64),
            ("aarch64", Some("32"), Firmware::Arm),
            ("riscv64", None, Firmware::RiscV64),
            ("loongarch64", Some("64"), Firmware::Other),
        ] {
            assert_eq!(Firmware::of(architecture, width), expected, "{architecture} {width:?}");
        }
        assert!(
            Firmware::Ia32.starts("ia32") && !Firmware::Ia32.starts("x64") && Firmware::Other.starts("x64")
        );
    }
}
