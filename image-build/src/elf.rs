//! The little of ELF this crate needs: sections by name (a module's `.modinfo`), the machine, and whether a program
//! asks for a dynamic loader. 64-bit little-endian only, which is every machine Ferric runs on. Reads untrusted bytes:
//! every access is checked.

/// An ELF file, looked at in memory.
#[derive(Debug, Clone, Copy)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    machine: u16,
}

const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_SONAME: u64 = 14;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

impl<'a> Elf<'a> {
    /// Looks at the header. `None` when this is not a 64-bit little-endian ELF file.
    pub fn parse(bytes: &'a [u8]) -> Option<Elf<'a>> {
        if bytes.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
            return None;
        }
        let machine = u16_at(bytes, 18)?;
        Some(Elf { bytes, machine })
    }

    /// The machine's name as the kernel has it (`x86_64`), or its ELF number.
    pub fn machine(&self) -> String {
        match self.machine {
            62 => "x86_64".to_owned(),
            183 => "aarch64".to_owned(),
            243 => "riscv64".to_owned(),
            other => format!("ELF machine {other}"),
        }
    }

    /// True for a program (as against an object file such as a kernel module).
    pub fn is_program(&self) -> bool {
        matches!(u16_at(self.bytes, 16), Some(ET_EXEC | ET_DYN))
            && u64_at(self.bytes, 24).is_some_and(|entry| entry != 0)
    }

    /// The dynamic loader this program asks the kernel for (`PT_INTERP`); `None` for a static program.
    pub fn interpreter(&self) -> Option<String> {
        let table = index(u64_at(self.bytes, 32)?)?;
        let size = usize::from(u16_at(self.bytes, 54)?);
        let count = usize::from(u16_at(self.bytes, 56)?);
        for number in 0..count {
            let header = table.checked_add(number.checked_mul(size)?)?;
            if u32_at(self.bytes, header)? == PT_INTERP {
                let offset = index(u64_at(self.bytes, header.checked_add(8)?)?)?;
                let length = index(u64_at(self.bytes, header.checked_add(32)?)?)?;
                let path = self.bytes.get(offset..offset.checked_add(length)?).unwrap_or_default();
                return Some(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned());
            }
        }
        None
    }

    /// The names of the shared libraries that this program or library is linked to (`DT_NEEDED`).
    pub fn needed(&self) -> Vec<String> {
        self.dynamic(DT_NEEDED)
    }

    /// The name by which others are linked to this library (`DT_SONAME`).
    pub fn library_name(&self) -> Option<String> {
        self.dynamic(DT_SONAME).into_iter().next()
    }

    /// The texts of all dynamic entries of a kind.
    fn dynamic(&self, wanted: u64) -> Vec<String> {
        let (Some(entries), Some(texts)) = (self.section(".dynamic"), self.section(".dynstr")) else {
            return Vec::new();
        };
        let entries = entries.chunks_exact(16).filter(|entry| u64_at(entry, 0) == Some(wanted));
        let text = |entry: &[u8]| {
            let text = texts.get(index(u64_at(entry, 8)?)?..)?.split(|&byte| byte == 0).next()?;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        entries.filter_map(text).collect()
    }

    /// The bytes of the section called `name`.
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let table = index(u64_at(self.bytes, 40)?)?;
        let size = usize::from(u16_at(self.bytes, 58)?);
        let count = usize::from(u16_at(self.bytes, 60)?);
        let names_number = usize::from(u16_at(self.bytes, 62)?);
        let header = |number: usize| table.checked_add(number.checked_mul(size)?);
        let names = self.section_bytes(header(names_number)?)?;
        for number in 0..count {
            let at = header(number)?;
            let name_offset = usize::try_from(u32_at(self.bytes, at)?).ok()?;
            let found = names.get(name_offset..).and_then(|rest| rest.split(|&byte| byte == 0).next());
            if found == Some(name.as_bytes()) {
                return self.section_bytes(at);
            }
        }
        None
    }

    fn section_bytes(&self, header: usize) -> Option<&'a [u8]> {
        let offset = index(u64_at(self.bytes, header.checked_add(24)?)?)?;
        let length = index(u64_at(self.bytes, header.checked_add(32)?)?)?;
        self.bytes.get(offset..offset.checked_add(length)?)
    }
}

fn index(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod sample {
    //! Small ELF files for tests.

    /// An object file with one `.modinfo` section.
    pub(crate) fn module(modinfo: &[&str]) -> Vec<u8> {
        let mut info = Vec::new();
        for entry in modinfo {
            info.extend_from_slice(entry.as_bytes());
            info.push(0);
        }
        let names = b"\0.modinfo\0.shstrtab\0";
        let names_at = 64 + info.len();
        let table_at = names_at + names.len();
        let mut elf = header(1, 62);
        elf[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&3u16.to_le_bytes());
        elf[62..64].copy_from_slice(&2u16.to_le_bytes());
        elf.extend_from_slice(&info);
        elf.extend_from_slice(names);
        elf.extend_from_slice(&[0; 64]);
        elf.extend_from_slice(&section(1, 64, info.len()));
        elf.extend_from_slice(&section(10, names_at, names.len()));
        elf
    }

    /// A program; asks for `interpreter` if one is given.
    pub(crate) fn program(interpreter: Option<&str>) -> Vec<u8> {
        let mut elf = header(3, 62);
        elf[24..32].copy_from_slice(&0x1000u64.to_le_bytes());
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56u16.to_le_bytes());
        elf[56..58].copy_from_slice(&1u16.to_le_bytes());
        let path = interpreter.map(|path| format!("{path}\0")).unwrap_or_default();
        let mut segment = [0u8; 56];
        segment[..4].copy_from_slice(&(if interpreter.is_some() { 3u32 } else { 1 }).to_le_bytes());
        segment[8..16].copy_from_slice(&120u64.to_le_bytes());
        segment[32..40].copy_from_slice(&(path.len() as u64).to_le_bytes());
        elf.extend_from_slice(&segment);
        elf.extend_from_slice(path.as_bytes());
        elf
    }

    /// A program or library with its dynamic section.
    pub(crate) fn dynamic(interpreter: Option<&str>, name: Option<&str>, needed: &[&str]) -> Vec<u8> {
        let mut elf = program(interpreter);
        let (mut texts, mut entries) = (vec![0u8], Vec::new());
        let needed = needed.iter().map(|text| (super::DT_NEEDED, *text));
        for (kind, text) in needed.chain(name.map(|text| (super::DT_SONAME, text))) {
            entries.extend_from_slice(&kind.to_le_bytes());
            entries.extend_from_slice(&(texts.len() as u64).to_le_bytes());
            texts.extend_from_slice(text.as_bytes());
            texts.push(0);
        }
        let names = b"\0.dynamic\0.dynstr\0.shstrtab\0";
        let entries_at = elf.len();
        let texts_at = entries_at + entries.len();
        let names_at = texts_at + texts.len();
        let table_at = names_at + names.len();
        elf[40..48].copy_from_slice(&(table_at as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&4u16.to_le_bytes());
        elf[62..64].copy_from_slice(&3u16.to_le_bytes());
        elf.extend_from_slice(&entries);
        elf.extend_from_slice(&texts);
        elf.extend_from_slice(names);
        elf.extend_from_slice(&[0; 64]);
        elf.extend_from_slice(&section(1, entries_at, entries.len()));
        elf.extend_from_slice(&section(10, texts_at, texts.len()));
        elf.extend_from_slice(&section(18, names_at, names.len()));
        elf
    }

    fn header(kind: u16, machine: u16) -> Vec<u8> {
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        elf[16..18].copy_from_slice(&kind.to_le_bytes());
        elf[18..20].copy_from_slice(&machine.to_le_bytes());
        elf
    }

    fn section(name: u32, offset: usize, length: usize) -> [u8; 64] {
        let mut section = [0u8; 64];
        section[..4].copy_from_slice(&name.to_le_bytes());
        section[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        section[32..40].copy_from_slice(&(length as u64).to_le_bytes());
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_a_section_by_name() {
        let file = sample::module(&["name=loop", "depends="]);
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(elf.section(".modinfo"), Some(&b"name=loop\0depends=\0"[..]));
        assert_eq!(elf.section(".text"), None);
        assert!(!elf.is_program());
    }

    #[test]
    fn tells_a_static_program_from_a_dynamic_one() {
        let file = sample::program(None);
        assert!(Elf::parse(&file).unwrap().is_program());
        assert_eq!(Elf::parse(&file).unwrap().interpreter(), None);
        let file = sample::program(Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(Elf::parse(&file).unwrap().interpreter().as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    }

    #[test]
    fn the_libraries_of_a_program_and_a_librarys_own_name_are_read() {
        let program = sample::dynamic(Some("/lib64/ld.so"), None, &["liba.so.1", "libb.so"]);
        let elf = Elf::parse(&program).unwrap();
        assert_eq!(elf.needed(), ["liba.so.1", "libb.so"]);
        assert_eq!((elf.library_name(), elf.interpreter().as_deref()), (None, Some("/lib64/ld.so")));
        let library = sample::dynamic(None, Some("liba.so.1"), &[]);
        assert_eq!(Elf::parse(&library).unwrap().library_name().as_deref(), Some("liba.so.1"));
        assert!(Elf::parse(&library).unwrap().needed().is_empty());
        assert!(Elf::parse(&sample::program(None)).unwrap().needed().is_empty());
        for cut in 64..library.len() {
            let _ = Elf::parse(&library[..cut]).map(|elf| (elf.needed(), elf.library_name())); // no panic
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(mut file in proptest::collection::vec(any::<u8>(), 0..400), keep_magic: bool) {
            if keep_magic && file.len() >= 6 {
                file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
            }
            if let Some(elf) = Elf::parse(&file) {
                let _ = (elf.section(".modinfo"), elf.interpreter(), elf.is_program(), elf.machine());
            }
        }

        #[test]
        fn a_damaged_module_never_panics(at in 0usize..300, value: u8) {
            let mut file = sample::module(&["name=loop", "depends=a,b"]);
            let at = at % file.len();
            file[at] = value;
            if let Some(elf) = Elf::parse(&file) {
                let _ = elf.section(".modinfo");
            }
        }
    }
}
