use super::*;
use proptest::prelude::*;

const MEMORY: DecoderMemory = DecoderMemory::Limit(1 << 24);

fn head(marks: &[(usize, &[u8])]) -> Vec<u8> {
    let mut head = vec![0u8; LOOK];
    for (offset, mark) in marks {
        head[*offset..offset + mark.len()].copy_from_slice(mark);
    }
    head
}

const MBR: &[(usize, &[u8])] = &[(446, &[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8]), (510, &[0x55, 0xaa])];
const GPT: &[(usize, &[u8])] = &[(446, &[0, 0, 2, 0, 0xee, 0, 0, 0, 1]), (510, &[0x55, 0xaa])];
const EMPTY: &[(usize, &[u8])] = &[(510, &[0x55, 0xaa])];
const ISO: &[(usize, &[u8])] = &[(0x8001, b"CD001")];
const FAT: &[(usize, &[u8])] = &[(0x10, &[2]), (0x15, &[0xf8]), (510, &[0x55, 0xaa])];

fn look(declared: Format, checks: &Checks, head: &[u8]) -> Result<Kind, Rule> {
    accept(declared, checks, head, MEMORY)
        .map(|accepted| accepted.kind)
        .map_err(|error| error.rule().unwrap())
}

/// Appendix A.2 of the data plane page: what the file is, then what becomes of it undeclared, as qcow2, as `unknown`, as raw.
#[test]
fn each_file_of_the_golden_table_is_taken_or_refused_as_there() {
    use Rule::{DeclaredFormat, PermittedFormat, TableEmpty};
    type Outcome = Result<Kind, Rule>;
    let vdi = [(0x40, &[0x7f, 0x10, 0xda, 0xbe][..])];
    let rows: &[(&str, Vec<u8>, [Outcome; 3])] = &[
        ("qcow2", head(&[(0, b"QFI\xfb")]), [Ok(Kind::Qcow2), Ok(Kind::Qcow2), Err(DeclaredFormat)]),
        ("vmdk", head(&[(0, b"KDMV")]), [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)]),
        (
            "vmdk text",
            head(&[(0, b"# Disk DescriptorFile")]),
            [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)],
        ),
        ("vhd", head(&[(0, b"conectix")]), [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)]),
        (
            "vhdx",
            head(&[(0, b"vhdxfile")]),
            [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)],
        ),
        ("vdi", head(&vdi), [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)]),
        (
            "luks",
            head(&[(0, b"LUKS\xba\xbe")]),
            [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)],
        ),
        ("qed", head(&[(0, b"QED\0")]), [Err(PermittedFormat), Err(PermittedFormat), Err(DeclaredFormat)]),
        ("iso", head(ISO), [Err(PermittedFormat), Err(PermittedFormat), Ok(Kind::Raw)]),
        ("fat", head(FAT), [Ok(Kind::Raw), Err(DeclaredFormat), Ok(Kind::Raw)]),
        ("zeros", head(&[]), [Ok(Kind::Raw), Err(DeclaredFormat), Ok(Kind::Raw)]),
        ("short", vec![7; 100], [Ok(Kind::Raw), Err(DeclaredFormat), Ok(Kind::Raw)]),
        ("mbr", head(MBR), [Ok(Kind::Gpt), Err(DeclaredFormat), Ok(Kind::Raw)]),
        ("gpt", head(GPT), [Ok(Kind::Gpt), Err(DeclaredFormat), Ok(Kind::Raw)]),
        ("empty table", head(EMPTY), [Err(TableEmpty), Err(TableEmpty), Ok(Kind::Raw)]),
    ];
    for (name, head, [undeclared, qcow2, raw]) in rows {
        let look = |declared| look(declared, &Checks::default(), head);
        assert_eq!(look(Format::Detect), *undeclared, "{name} undeclared");
        assert_eq!(look(Format::Qcow2), *qcow2, "{name} as qcow2");
        assert_eq!(look(Format::Raw), *raw, "{name} as raw");
    }
}

#[test]
fn an_iso_is_taken_where_it_is_permitted_and_a_hybrid_only_as_raw() {
    let permitted = Checks { permitted: vec!["raw".into(), "gpt".into(), "iso".into()], ..Checks::default() };
    for declared in [Format::Detect, Format::Iso] {
        assert_eq!(look(declared, &permitted, &head(ISO)), Ok(Kind::Iso));
        assert_eq!(look(declared, &Checks::default(), &head(ISO)), Err(Rule::PermittedFormat));
        assert_eq!(look(declared, &permitted, &head(&[ISO, MBR].concat())), Err(Rule::OneFormat));
    }
    assert_eq!(look(Format::Iso, &permitted, &head(MBR)), Err(Rule::DeclaredFormat));
    assert_eq!(look(Format::Raw, &Checks::default(), &head(&[ISO, MBR].concat())), Ok(Kind::Raw));
}

#[test]
fn what_is_declared_raw_is_not_held_to_the_rules_of_tables() {
    let odd = [(446, &[0x42, 9, 9, 9, 0xee, 0, 0, 0, 7][..]), (510, &[0x55, 0xaa])];
    assert_eq!(look(Format::Raw, &Checks::default(), &head(&odd)), Ok(Kind::Raw));
    assert_eq!(look(Format::Detect, &Checks::default(), &head(&odd)), Err(Rule::TableBootFlag));
}

#[test]
fn without_inspection_only_what_can_not_be_written_is_refused() {
    let checks = Checks { permitted: vec![], inspect: false, ..Checks::default() };
    for declared in [Format::Detect, Format::Qcow2] {
        assert_eq!(look(declared, &checks, &head(EMPTY)), Ok(Kind::Gpt));
        assert_eq!(look(declared, &checks, &head(&[ISO, MBR].concat())), Ok(Kind::Raw));
        assert_eq!(look(declared, &checks, &head(&[(0, b"QFI\xfb")])), Ok(Kind::Qcow2));
        assert_eq!(look(declared, &checks, &head(&[(0, b"KDMV")])), Err(Rule::WritableFormat));
        let two: [(usize, &[u8]); 2] = [(0, b"QFI\xfb"), (510, &[0x55, 0xaa])];
        assert_eq!(look(declared, &checks, &head(&two)), Err(Rule::OneFormat));
    }
}

#[test]
fn a_permitted_format_that_can_not_be_written_says_how_to_convert_it() {
    let checks = Checks { permitted: vec!["vmdk".into(), "vhd".into()], ..Checks::default() };
    for (mark, name) in [(&b"KDMV"[..], "-f vmdk"), (b"conectix", "-f vpc")] {
        let error = accept(Format::Detect, &checks, &head(&[(0, mark)]), MEMORY).unwrap_err();
        assert_eq!(error.rule(), Some(Rule::WritableFormat));
        let text = error.report();
        assert!(text.contains("qemu-img convert") && text.contains(name) && text.contains("qcow2"), "{text}");
    }
}

#[test]
fn a_partition_may_hold_an_encrypted_volume_and_a_whole_disk_may_not() {
    let luks = head(&[(0, b"LUKS\xba\xbe")]);
    let partition = Checks { whole_disk: false, ..Checks::default() };
    assert_eq!(look(Format::Raw, &partition, &luks), Ok(Kind::Raw));
    assert_eq!(look(Format::Raw, &Checks::default(), &luks), Err(Rule::DeclaredFormat));
    assert_eq!(look(Format::Detect, &partition, &luks), Err(Rule::PermittedFormat));
}

#[test]
fn a_table_may_be_optional_or_required_and_is_held_to_the_rules_otherwise() {
    let with = |table| Checks { table, ..Checks::default() };
    let luks = head(&[(0, b"LUKS\xba\xbe")]);
    // The boot sector of NTFS: code where a table would have its records.
    let boot = head(&[(0, b"\xeb\x52\x90NTFS    "), (446, &[0x0f, 0x84, 0x5a]), (510, &[0x55, 0xaa])]);
    let optional = with(TableCheck::Optional);
    assert_eq!(look(Format::Raw, &optional, &luks), Ok(Kind::Raw));
    assert_eq!(look(Format::Detect, &optional, &boot), Ok(Kind::Gpt));
    assert_eq!(look(Format::Detect, &optional, &head(EMPTY)), Ok(Kind::Gpt));
    assert_eq!(look(Format::Raw, &optional, &head(&[])), Ok(Kind::Raw));
    let required = with(TableCheck::Required);
    for bare in [head(&[]), vec![7; LOOK]] {
        for declared in [Format::Raw, Format::Detect] {
            assert_eq!(look(declared, &required, &bare), Err(Rule::TableMissing));
            assert_eq!(look(declared, &with(TableCheck::Rules), &bare), Ok(Kind::Raw));
        }
        let zip = zstd::bulk::compress(&bare, 1).unwrap();
        assert_eq!(look(Format::Raw, &required, &zip), Err(Rule::TableMissing));
    }
    assert_eq!(look(Format::Raw, &required, &head(GPT)), Ok(Kind::Raw));
    assert_eq!(look(Format::Raw, &required, &head(&[(4096, b"EFI PART")])), Ok(Kind::Raw));
    assert_eq!(look(Format::Detect, &with(TableCheck::Rules), &boot), Err(Rule::TableBootFlag));
}

#[test]
fn the_rules_reach_into_compressed_files() {
    let zip = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let checks = Checks::default();
    let accepted = accept(Format::Detect, &checks, &zip(&head(GPT)), MEMORY).unwrap();
    assert_eq!((accepted.kind, accepted.compression), (Kind::Gpt, Some(Compression::Zstd)));
    assert_eq!(accepted.inside.unwrap(), head(GPT));
    assert_eq!(look(Format::Raw, &checks, &zip(&head(EMPTY))), Ok(Kind::Raw));
    assert_eq!(look(Format::Detect, &checks, &zip(&head(EMPTY))), Err(Rule::TableEmpty));
    assert_eq!(look(Format::Detect, &checks, &zip(&head(ISO))), Err(Rule::PermittedFormat));
    assert_eq!(look(Format::Qcow2, &checks, &zip(&head(GPT))), Err(Rule::DeclaredFormat));
    for declared in [Format::Raw, Format::Detect] {
        assert_eq!(look(declared, &checks, &zip(&head(&[(0, b"QFI\xfb")]))), Err(Rule::RawInside));
    }
}

proptest! {
    #[test]
    fn no_head_panics_and_a_refusal_has_a_rule(
        patches in proptest::collection::vec((0..600usize, any::<u8>()), 0..60),
        base in 0..4usize, declared in 0..4usize, inspect: bool,
    ) {
        let mut head = head([MBR, GPT, ISO, FAT][base]);
        for (at, byte) in patches {
            head[at] = byte;
        }
        let declared = [Format::Raw, Format::Qcow2, Format::Iso, Format::Detect][declared];
        let checks = Checks { inspect, ..Checks::default() };
        if let Err(error) = accept(declared, &checks, &head, MEMORY) {
            // Noise may look like the start of a compressed file, which then is one that is damaged.
            prop_assert!(error.rule().is_some() || Compression::detect(&head).is_some());
        }
    }
}
