//! Bios, processors and memory as `dmidecode` describes them, in the shape that ironic-python-agent makes of its output.
//!
//! Source: `dmi_inspector.py` (data plane page, 10.5): keys verbatim, lists for what stands on several lines, one number for the
//! slots of all memory arrays. A field that the structure is too short for is left out, as dmidecode does.

use serde_json::{Map, Value, json};

use super::structure::{Structure, structures};
use super::words::{self, word, words_of_bits};

/// The fields of one structure.
type Rows = Map<String, Value>;

/// `{"bios": {...}, "cpu": [{...}], "memory": {..., "devices": [{...}]}}`.
pub(crate) fn dmi(table: &[u8]) -> Value {
    let (mut bios, mut processors, mut arrays, mut devices) =
        (Rows::new(), Vec::new(), Vec::new(), Vec::new());
    for structure in structures(table) {
        // A structure that ends too early gives what stands before its end.
        match structure.kind {
            0 => bios = described(&structure, describe_bios),
            4 => processors.push(described(&structure, describe_processor)),
            16 => arrays.push(described(&structure, describe_array)),
            17 => devices.push(described(&structure, describe_device)),
            _ => {}
        }
    }
    const SLOTS: &str = "Number Of Devices";
    let slots: u64 = arrays.iter().filter_map(|array| array.get(SLOTS).and_then(Value::as_u64)).sum();
    let mut memory = arrays.into_iter().next().unwrap_or_default();
    if !memory.is_empty() {
        memory.shift_remove("Handle");
        memory.insert(SLOTS.into(), slots.into());
    }
    memory.insert("devices".into(), json!(devices));
    json!({ "bios": bios, "cpu": processors, "memory": memory })
}

fn described(structure: &Structure<'_>, describe: fn(&Structure<'_>, &mut Rows) -> Option<()>) -> Rows {
    let mut rows = Rows::new();
    let (handle, kind, length) =
        (structure.handle().unwrap_or_default(), structure.kind, structure.data.len());
    put(&mut rows, "Handle", format!("Handle 0x{handle:04X}, DMI type {kind}, {length} bytes"));
    // `None` is the structure's end.
    let _ = describe(structure, &mut rows);
    rows
}

fn put(rows: &mut Rows, key: &str, value: impl Into<Value>) {
    rows.insert(key.into(), value.into());
}

fn put_list(rows: &mut Rows, key: &str, list: Vec<&'static str>) {
    put(rows, key, if list.is_empty() { json!("None") } else { json!(list) });
}

/// Type 0.
fn describe_bios(s: &Structure<'_>, rows: &mut Rows) -> Option<()> {
    put(rows, "Vendor", s.string(0x04)?);
    put(rows, "Version", s.string(0x05)?);
    put(rows, "Release Date", s.string(0x08)?);
    let segment = s.word(0x06)?;
    if segment != 0 {
        put(rows, "Address", format!("0x{segment:04X}0"));
        let bytes = (0x1_0000 - u32::from(segment)) << 4;
        let size = if bytes & 0x3ff == 0 { format!("{} kB", bytes >> 10) } else { format!("{bytes} bytes") };
        put(rows, "Runtime Size", size);
    }
    let extended = s.word(0x18).filter(|_| s.byte(0x09) == Some(0xff));
    put(
        rows,
        "ROM Size",
        match extended {
            Some(size) if size >> 14 == 0 => format!("{} MB", size & 0x3fff),
            Some(size) if size >> 14 == 1 => format!("{} GB", size & 0x3fff),
            Some(_) => words::OUT_OF_SPEC.into(),
            None => memory_size((u64::from(s.byte(0x09)?) + 1) << 6, KILO),
        },
    );
    let characteristics = s.quad(0x0a)?;
    let mut list = match characteristics & 8 {
        0 => words_of_bits(&words::BIOS_CHARACTERISTICS, 4, characteristics),
        _ => vec!["BIOS characteristics not supported"],
    };
    list.extend(words_of_bits(&words::BIOS_CHARACTERISTICS_1, 0, s.byte(0x12).unwrap_or(0).into()));
    list.extend(words_of_bits(&words::BIOS_CHARACTERISTICS_2, 0, s.byte(0x13).unwrap_or(0).into()));
    put(rows, "Characteristics", json!(list));
    for (key, major, minor) in [("BIOS Revision", 0x14, 0x15), ("Firmware Revision", 0x16, 0x17)] {
        let (major, minor) = (s.byte(major)?, s.byte(minor)?);
        if (major, minor) != (0xff, 0xff) {
            put(rows, key, format!("{major}.{minor}"));
        }
    }
    Some(())
}

/// Type 4.
fn describe_processor(s: &Structure<'_>, rows: &mut Rows) -> Option<()> {
    let megahertz = |speed: u16| if speed == 0 { "Unknown".into() } else { format!("{speed} MHz") };
    let manufacturer = s.string(0x07)?;
    let family = match s.byte(0x06)? {
        0xfe => s.word(0x28).unwrap_or(0xfe),
        family => family.into(),
    };
    put(rows, "Socket Designation", s.string(0x04)?);
    put(rows, "Type", word(&words::PROCESSOR_TYPES, 1, s.byte(0x05)?));
    put(
        rows,
        "Family",
        match family {
            // One number, two makers.
            0xbe if manufacturer.contains("Intel") => "Core 2",
            0xbe if manufacturer.contains("AMD") => "K7",
            0xbe => "Core 2 or K7",
            family => words::family(family),
        },
    );
    put(rows, "Manufacturer", manufacturer);
    let id = s.data.get(0x08..0x10)?;
    put(rows, "ID", id.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" "));
    describe_signature(family, s.double(0x08)?, s.double(0x0c)?, rows);
    put(rows, "Version", s.string(0x10)?);
    put(
        rows,
        "Voltage",
        match s.byte(0x11)? {
            tenths if tenths & 0x80 != 0 => format!("{}.{} V", (tenths & 0x7f) / 10, (tenths & 0x7f) % 10),
            bits => match words_of_bits(&["5.0 V", "3.3 V", "2.9 V"], 0, bits.into()) {
                volts if volts.is_empty() => "Unknown".into(),
                volts => volts.join(" "),
            },
        },
    );
    put(rows, "External Clock", megahertz(s.word(0x12)?));
    put(rows, "Max Speed", megahertz(s.word(0x14)?));
    put(rows, "Current Speed", megahertz(s.word(0x16)?));
    let status = s.byte(0x18)?;
    put(
        rows,
        "Status",
        match (status & 0x40 != 0, status & 7) {
            (false, _) => "Unpopulated".to_owned(),
            (true, 7) => "Populated, Other".into(),
            (true, state) => {
                let states = ["Unknown", "Enabled", "Disabled By User", "Disabled By BIOS", "Idle"];
                format!("Populated, {}", states.get(usize::from(state)).unwrap_or(&words::OUT_OF_SPEC))
            }
        },
    );
    put(rows, "Upgrade", word(&words::PROCESSOR_UPGRADES, 1, s.byte(0x19)?));
    for (level, offset) in [(1, 0x1a), (2, 0x1c), (3, 0x1e)] {
        let handle = s.word(offset)?;
        let text = if handle == 0xffff { "Not Provided".into() } else { format!("0x{handle:04X}") };
        put(rows, &format!("L{level} Cache Handle"), text);
    }
    put(rows, "Serial Number", s.string(0x20)?);
    put(rows, "Asset Tag", s.string(0x21)?);
    put(rows, "Part Number", s.string(0x22)?);
    let characteristics = s.word(0x26)?;
    for (key, short, long) in
        [("Core Count", 0x23, 0x2a), ("Core Enabled", 0x24, 0x2c), ("Thread Count", 0x25, 0x2e)]
    {
        let count = match s.byte(short)? {
            0xff => s.word(long).unwrap_or(0xff),
            count => count.into(),
        };
        if count != 0 {
            put(rows, key, count.to_string());
        }
    }
    put_list(
        rows,
        "Characteristics",
        words_of_bits(&words::PROCESSOR_CHARACTERISTICS, 2, characteristics.into()),
    );
    Some(())
}

/// What the processor says of itself; how to read it depends on its family.
fn describe_signature(family: u16, signature: u32, flags: u32, rows: &mut Rows) {
    let field = |shift: u32, mask: u32| signature >> shift & mask;
    let base = field(8, 0xf);
    let text = match family {
        0x05 => format!(
            "Type {}, Family {base}, Major Stepping {}, Minor Stepping {}",
            field(12, 0xf),
            field(4, 0xf),
            field(0, 0xf)
        ),
        0x100 | 0x101 | 0x118 | 0x119 => {
            let text = format!(
                "Implementor 0x{:02x}, Variant 0x{:x}, Architecture {}, Part 0x{:03x}, Revision {}",
                field(24, 0xff),
                field(20, 0xf),
                field(16, 0xf),
                field(4, 0xfff),
                field(0, 0xf)
            );
            return put(rows, "Signature", text); // and no flags
        }
        0x06
        | 0x0b..=0x15
        | 0x28..=0x2f
        | 0xa1..=0xb3
        | 0xb5
        | 0xb9..=0xc7
        | 0xcd..=0xcf
        | 0xd2..=0xdb
        | 0xdd..=0xe0 => format!(
            "Type {}, Family {}, Model {}, Stepping {}",
            field(12, 3),
            field(20, 0xff) + base,
            field(12, 0xf0) + field(4, 0xf),
            field(0, 0xf)
        ),
        0x18..=0x1d
        | 0x1f
        | 0x38..=0x3f
        | 0x46..=0x4f
        | 0x66..=0x6b
        | 0x83..=0x8f
        | 0xb6
        | 0xb7
        | 0xe4..=0xef => {
            let extended = |value| if base == 0xf { value } else { 0 };
            let (family, model) =
                (base + extended(field(20, 0xff)), field(4, 0xf) | extended(field(12, 0xf0)));
            format!("Family {family}, Model {model}, Stepping {}", field(0, 0xf))
        }
        _ => return,
    };
    put(rows, "Signature", text);
    if family != 0x05 {
        put_list(rows, "Flags", words_of_bits(&words::PROCESSOR_FLAGS, 0, flags.into()));
    }
}

/// Type 16. `Number Of Devices` is a number.
fn describe_array(s: &Structure<'_>, rows: &mut Rows) -> Option<()> {
    put(
        rows,
        "Location",
        match s.byte(0x04)? {
            location @ 0xa0.. => word(&words::ARRAY_LOCATIONS_A0, 0xa0, location),
            location => word(&words::ARRAY_LOCATIONS, 1, location),
        },
    );
    put(rows, "Use", word(&words::ARRAY_USES, 1, s.byte(0x05)?));
    put(rows, "Error Correction Type", word(&words::ARRAY_CORRECTIONS, 1, s.byte(0x06)?));
    put(
        rows,
        "Maximum Capacity",
        match s.double(0x07)? {
            0x8000_0000 => s.quad(0x0f).map_or_else(|| "Unknown".into(), |bytes| memory_size(bytes, BYTES)),
            kib => memory_size(kib.into(), KILO),
        },
    );
    put(rows, "Error Information Handle", error_handle(s.word(0x0b)?));
    put(rows, "Number Of Devices", s.word(0x0d)?);
    Some(())
}

/// Type 17.
fn describe_device(s: &Structure<'_>, rows: &mut Rows) -> Option<()> {
    let bits =
        |width: u16| if matches!(width, 0 | 0xffff) { "Unknown".into() } else { format!("{width} bits") };
    put(rows, "Array Handle", format!("0x{:04X}", s.word(0x04)?));
    put(rows, "Error Information Handle", error_handle(s.word(0x06)?));
    put(rows, "Total Width", bits(s.word(0x08)?));
    put(rows, "Data Width", bits(s.word(0x0a)?));
    let size = s.word(0x0c)?;
    put(
        rows,
        "Size",
        match (size, s.double(0x1c)) {
            (0, _) => "No Module Installed".into(),
            (0xffff, _) => "Unknown".into(),
            (0x7fff, Some(mib)) => memory_size(u64::from(mib & 0x7fff_ffff), MEGA),
            (kib, _) if kib & 0x8000 != 0 => memory_size((kib & 0x7fff).into(), KILO),
            (mib, _) => memory_size(mib.into(), MEGA),
        },
    );
    put(rows, "Form Factor", word(&words::MEMORY_FORMS, 1, s.byte(0x0e)?));
    put(
        rows,
        "Set",
        match s.byte(0x0f)? {
            0 => "None".into(),
            0xff => "Unknown".into(),
            set => set.to_string(),
        },
    );
    put(rows, "Locator", s.string(0x10)?);
    put(rows, "Bank Locator", s.string(0x11)?);
    put(rows, "Type", word(&words::MEMORY_TYPES, 1, s.byte(0x12)?));
    put(rows, "Type Detail", words_or_none(&words_of_bits(&words::MEMORY_DETAILS, 1, s.word(0x13)?.into())));
    if size == 0 {
        return None; // nothing else is worth saying of an empty slot
    }
    put(rows, "Speed", speed(s.word(0x15)?, s.double(0x54)));
    let texts = [("Manufacturer", 0x17), ("Serial Number", 0x18), ("Asset Tag", 0x19), ("Part Number", 0x1a)];
    if s.data.len() < 0x1b {
        return None;
    }
    for (key, offset) in texts {
        put(rows, key, s.string(offset)?);
    }
    put(
        rows,
        "Rank",
        match s.byte(0x1b)? & 0x0f {
            0 => "Unknown".into(),
            rank => rank.to_string(),
        },
    );
    put(rows, "Configured Memory Speed", speed(s.word(0x20)?, s.double(0x58)));
    if s.data.len() < 0x28 {
        return None;
    }
    for (key, offset) in [("Minimum Voltage", 0x22), ("Maximum Voltage", 0x24), ("Configured Voltage", 0x26)]
    {
        put(rows, key, volts(s.word(offset)?));
    }
    if s.data.len() < 0x34 {
        return None;
    }
    put(rows, "Memory Technology", word(&words::MEMORY_TECHNOLOGIES, 1, s.byte(0x28)?));
    let modes = words_of_bits(&words::MEMORY_MODES, 1, s.word(0x29)?.into());
    put(rows, "Memory Operating Mode Capability", words_or_none(&modes));
    put(rows, "Firmware Version", s.string(0x2b)?);
    let product = |id: u16| if id == 0 { "Unknown".into() } else { format!("0x{id:04X}") };
    put(rows, "Module Manufacturer ID", maker(s.word(0x2c)?));
    put(rows, "Module Product ID", product(s.word(0x2e)?));
    put(rows, "Memory Subsystem Controller Manufacturer ID", maker(s.word(0x30)?));
    put(rows, "Memory Subsystem Controller Product ID", product(s.word(0x32)?));
    let sizes = [("Non-Volatile", 0x34), ("Volatile", 0x3c), ("Cache", 0x44), ("Logical", 0x4c)];
    for (key, offset) in sizes {
        let text = match s.quad(offset)? {
            u64::MAX => "Unknown".into(),
            0 => "None".into(),
            bytes => memory_size(bytes, BYTES),
        };
        put(rows, &format!("{key} Size"), text);
    }
    Some(())
}

fn words_or_none(list: &[&str]) -> String {
    if list.is_empty() { "None".into() } else { list.join(" ") }
}

fn error_handle(handle: u16) -> String {
    match handle {
        0xfffe => "Not Provided".into(),
        0xffff => "No Error".into(),
        handle => format!("0x{handle:04X}"),
    }
}

fn speed(speed: u16, extended: Option<u32>) -> String {
    match (speed, extended) {
        (0, _) | (0xffff, None | Some(0)) => "Unknown".into(),
        (0xffff, Some(speed)) => format!("{speed} MT/s"),
        (speed, _) => format!("{speed} MT/s"),
    }
}

/// Millivolts, with one digit after the point or as many as it takes.
fn volts(millivolts: u16) -> String {
    let (whole, rest) = (millivolts / 1000, millivolts % 1000);
    match rest {
        _ if millivolts == 0 => "Unknown".into(),
        rest if rest % 100 == 0 => format!("{whole}.{} V", rest / 100),
        rest => format!("{whole}.{} V", format!("{rest:03}").trim_end_matches('0')),
    }
}

/// A maker in JEDEC's list: the bank without its parity bit, then the number.
fn maker(id: u16) -> String {
    match id {
        0 => "Unknown".into(),
        id => format!("Bank {}, Hex 0x{:02X}", (id & 0x7f) + 1, id >> 8),
    }
}

const UNITS: [&str; 7] = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
const BYTES: usize = 0;
const KILO: usize = 1;
const MEGA: usize = 2;

/// A size in the greatest unit in which it is whole, or in the next smaller one: never more than seven digits.
fn memory_size(size: u64, unit: usize) -> String {
    let (mut size, mut unit) = (size, unit);
    while size >= 1024 && (size % 1024 == 0 || size >= 1024 * 1024) && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    format!("{size} {}", UNITS.get(unit).unwrap_or(&"?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made by `fixtures/dmi.py`: the table, and what ironic-python-agent makes of dmidecode's words for it.
    const TABLE: &[u8] = include_bytes!("fixtures/table.bin");
    const EXPECTED: &str = include_str!("fixtures/dmi.json");

    #[test]
    fn the_words_are_dmidecodes() {
        let expected: Value = serde_json::from_str(EXPECTED).unwrap();
        let found = dmi(TABLE);
        for part in ["bios", "memory"] {
            assert_eq!(found[part], expected[part], "{part}");
        }
        let (found, expected) = (found["cpu"].as_array().unwrap(), expected["cpu"].as_array().unwrap());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_machine_without_a_table_has_the_same_keys() {
        assert_eq!(dmi(&[]), json!({"bios": {}, "cpu": [], "memory": {"devices": []}}));
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic_or_loop(table in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = dmi(&table);
        }

        #[test]
        fn a_table_cut_or_changed_anywhere_is_survived(at in 0..TABLE.len(), byte: u8, end in 0..TABLE.len()) {
            let mut table = TABLE.to_vec();
            table[at] = byte;
            table.truncate(end);
            let _ = dmi(&table);
        }
    }
}
