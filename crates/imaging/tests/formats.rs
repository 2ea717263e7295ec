//! Files as the tools make them, held to the golden table of formats (data plane page, A.2): taken, or refused by a rule
//! before a byte is written.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use imaging::{Checks, ErrorKind, Format, MemorySink, Rule};
use support::*;

/// A program on local files of a few megabytes; false where there is none.
fn tool(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    run(words[0], &words[1..])
}

#[allow(clippy::disallowed_methods)] // a test runs the real tool
fn run(program: &str, arguments: &[&str]) -> bool {
    let Ok(output) = std::process::Command::new(program).args(arguments).output() else {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: no {program}\n")); // past cargo's capture: it counts
        return false;
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

fn outcome(file: &[u8], format: Format, checks: &Checks) -> Result<(), Option<Rule>> {
    let disk = MemorySink::new(3 * MIB, 0xa5);
    let server = Server::new(file.to_vec());
    let request = imaging::ImageRequest { checks: checks.clone(), ..request(server.url(), file, format) };
    match write(&request, &disk) {
        Ok(_) => Ok(()),
        Err(error) => {
            assert_eq!((error.kind(), disk.writes()), (ErrorKind::InvalidImage, 0), "{}", error.report());
            let rule = error.rule();
            assert!(rule.is_none_or(|rule| error.report().contains(rule.name())), "{}", error.report());
            Err(rule)
        }
    }
}

#[test]
fn files_of_qemu_img_are_taken_or_refused_as_in_the_golden_table() {
    if !tool("qemu-img --version") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (base, image, data) = (path("base"), path("image"), path("data"));
    std::fs::write(&base, vec![1; MIB]).unwrap();
    let convert = |options: &str| format!("qemu-img convert -f raw {options} {base} {image}");
    let create = |options: &str| format!("qemu-img create -f qcow2 {options} {image} 1M");
    let refused = |rule| Err(Some(rule));
    let foreign = refused(Rule::PermittedFormat);
    // The line that makes it; undeclared and `unknown`; as qcow2; as raw.
    let rows = [
        (convert("-O qcow2"), Ok(()), Ok(()), refused(Rule::DeclaredFormat)),
        (convert("-O qcow2 -o compat=0.10"), Ok(()), Ok(()), refused(Rule::DeclaredFormat)),
        (convert("-O qcow2 -o compression_type=zstd -c"), Ok(()), Ok(()), refused(Rule::DeclaredFormat)),
        (convert("-O qcow2 -o lazy_refcounts=on"), Ok(()), Ok(()), refused(Rule::DeclaredFormat)),
        // Here Ironic's agent refuses; this reader knows the feature.
        (convert("-O qcow2 -o extended_l2=on"), Ok(()), Ok(()), refused(Rule::DeclaredFormat)),
        (
            create(&format!("-F raw -b {base}")),
            refused(Rule::Qcow2BackingFile),
            refused(Rule::Qcow2BackingFile),
            refused(Rule::DeclaredFormat),
        ),
        (
            create(&format!("-o data_file={data}")),
            refused(Rule::Qcow2ExternalData),
            refused(Rule::Qcow2ExternalData),
            refused(Rule::DeclaredFormat),
        ),
        (
            convert("-O qcow"),
            refused(Rule::Qcow2Version),
            refused(Rule::Qcow2Version),
            refused(Rule::DeclaredFormat),
        ),
        (convert("-O vmdk"), foreign, foreign, refused(Rule::DeclaredFormat)),
        (convert("-O vmdk -o subformat=streamOptimized"), foreign, foreign, refused(Rule::DeclaredFormat)),
        (convert("-O vpc"), foreign, foreign, refused(Rule::DeclaredFormat)),
        (convert("-O vhdx"), foreign, foreign, refused(Rule::DeclaredFormat)),
        (convert("-O vdi"), foreign, foreign, refused(Rule::DeclaredFormat)),
        (convert("-O qed"), foreign, foreign, refused(Rule::DeclaredFormat)),
        // A raw disk with a footer.
        (convert("-O vpc -o subformat=fixed"), Ok(()), refused(Rule::DeclaredFormat), Ok(())),
        (convert("-O raw"), Ok(()), refused(Rule::DeclaredFormat), Ok(())),
    ];
    for (line, undeclared, qcow2, raw) in rows {
        for file in [&image, &data] {
            let _ = std::fs::remove_file(file);
        }
        tool(&line);
        let file = std::fs::read(&image).unwrap();
        let checks = Checks::default();
        assert_eq!(outcome(&file, Format::Detect, &checks), undeclared, "undeclared: {line}");
        assert_eq!(outcome(&file, Format::Qcow2, &checks), qcow2, "as qcow2: {line}");
        assert_eq!(outcome(&file, Format::Raw, &checks), raw, "as raw: {line}");
    }
}

#[test]
fn snapshots_bitmaps_and_dirty_marks_of_a_qcow2_image_do_not_hinder() {
    if !tool("qemu-img --version") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (base, image) = (path("base"), path("image"));
    let raw = disk_image(2 * MIB, 41);
    std::fs::write(&base, &raw).unwrap();
    tool(&format!("qemu-img convert -f raw -O qcow2 {base} {image}"));
    tool(&format!("qemu-img snapshot -c before {image}"));
    tool(&format!("qemu-img bitmap --add {image} changes"));
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 64k 64k", &image]);
    let mut file = std::fs::read(&image).unwrap();
    // Incompatible features: dirty and corrupt.
    file[79] |= 3;
    let mut now = raw;
    now[65536..131_072].fill(7);
    let disk = MemorySink::new(3 * MIB, 0xa5);
    write(&request(Server::new(file.clone()).url(), &file, Format::Qcow2), &disk).unwrap();
    assert_disk(&disk, &now, 0xa5);
}

#[test]
fn an_iso_is_written_as_it_is_where_it_is_permitted() {
    let mut iso = disk_image(MIB, 42);
    iso[..0x8000].fill(0);
    iso[0x8000..0x8006].copy_from_slice(b"\x01CD001");
    let permitted = Checks { permitted: vec!["iso".into()], ..Checks::default() };
    for format in [Format::Detect, Format::Iso] {
        assert_eq!(outcome(&iso, format, &Checks::default()), Err(Some(Rule::PermittedFormat)));
        let disk = MemorySink::new(3 * MIB, 0xa5);
        let server = Server::new(iso.clone());
        let request =
            imaging::ImageRequest { checks: permitted.clone(), ..request(server.url(), &iso, format) };
        write(&request, &disk).unwrap();
        assert_disk(&disk, &iso, 0xa5);
    }
    assert_eq!(outcome(&iso, Format::Raw, &Checks::default()), Ok(()));
}

#[test]
fn tables_that_break_a_rule_are_refused_by_it_and_written_when_declared_raw() {
    let mut image = disk_image(MIB, 43);
    image[..512].fill(0);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    let checks = Checks::default();
    let mut with = |patches: &[(usize, u8)]| {
        for (at, byte) in patches {
            image[*at] = *byte;
        }
        assert_eq!(outcome(&image, Format::Raw, &checks), Ok(()), "declared raw it is taken at its word");
        let found = outcome(&image, Format::Detect, &checks);
        for (at, _) in patches {
            image[*at] = 0;
        }
        found
    };
    let protective = [(448, 2), (450, 0xee), (454, 1)];
    assert_eq!(with(&protective), Ok(()));
    assert_eq!(with(&[]), Err(Some(Rule::TableEmpty)));
    assert_eq!(with(&[(450, 0x83), (462, 1)]), Err(Some(Rule::TableBootFlag)));
    assert_eq!(with(&[&protective[1..], &[(448, 1)]].concat()), Err(Some(Rule::TableProtectiveChs)));
    assert_eq!(with(&[&protective[..2], &[(454, 2)]].concat()), Err(Some(Rule::TableProtectiveStart)));
    assert_eq!(with(&[&protective[..], &[(466, 0x83)]].concat()), Err(Some(Rule::TableProtectiveAlone)));
}
