//! `make demo`: a blank machine boots Ferric's ramdisk from the network, gets a Debian, and says so itself.
//!
//! Everything is done by the `ferric` commands that it prints; what this program adds is the machine's own words at the end.
//! `demo --stop` switches off what an interrupted demo left running. Started by `scripts/demo.sh`.

// A command line's output is its purpose, and starting `ferric` is what this one is for.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::{Bench, Scratch, Serial, Shape, debian_image, patient, root, skip_vm};
use serde_json::Value;

const IMAGE: &str = "disk-zlib.qcow2";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--stop") {
        e2e::switch_off_leftovers(&root().join(".cache/demo"));
        return ExitCode::SUCCESS;
    }
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn phase(text: &str) {
    eprintln!("\n==> {text}");
}

fn shown(command: &str) {
    eprintln!("    $ {command}");
}

fn demo() -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    phase("A real Debian as a disk image");
    let debian = debian_image()?;
    let image = debian.path(IMAGE);
    let images = debian.dir().to_str().context("path")?;
    eprintln!("    {}, {} MiB", image.display(), std::fs::metadata(&image)?.len() >> 20);

    phase("The controller");
    let bench = Bench::start(Scratch::at(root().join(".cache/demo"))?, &["--images", images])?;
    shown("ferric serve --state .cache/demo/state --ramdisk dist/ramdisk --images ...");
    eprintln!("    {}", bench.controller.url());

    phase("A blank machine: UEFI, 512 MiB of memory, an empty disk of 4 GiB");
    shown("ferric node create demo --driver qemu --mac 52:54:00:fe:88:1c ...");
    shown("ferric node manage demo && ferric node provide demo");
    let shape = Shape { boot: "pxe", ..Shape::QUICK };
    let node = bench.node("demo", "52:54:00:fe:88:1c", shape)?;
    let config = bench.config_drive("ferric-demo", "deployed by Ferric")?;

    phase("Deploying: network boot, stream, verify, write, reboot");
    let checksum = format!("sha512:{}", debian.sha512(IMAGE)?);
    shown("ferric deploy demo --image disk-zlib.qcow2 --checksum sha512:... --config-drive config --watch");
    #[rustfmt::skip]
    let status = bench.controller
        .command(&[
            "deploy", "demo", "--image", image.to_str().context("path")?, "--checksum", &checksum,
            "--config-drive", config.to_str().context("path")?, "--watch", "--timeout", "900",
        ])
        .status()
        .context("running ferric deploy")?;
    ensure!(
        status.success(),
        "the deploy failed; the machine's console: {}\n{}",
        node.serial.path().display(),
        node.serial.tail()
    );

    phase("Waiting for the deployed system to speak");
    let line = node.serial.wait_for("FERRIC-DEPLOYED", patient(240))?;
    let spoke = unix_now() - line.at.elapsed().as_secs_f64();
    let login = node.serial.wait_for("login:", patient(60))?;
    let ready = unix_now() - login.at.elapsed().as_secs_f64();

    phase("Timeline");
    let timeline = bench.controller.ferric(&["timeline", "demo", "--json"])?.json()?;
    print!("{}", table(&timeline, &[("deployed system speaks", spoke), ("login", ready)]));

    phase("The machine's own words, on its serial console");
    println!("{}", line.text);
    finish(bench, &node.serial)
}

/// Switches the machine off and keeps the logs.
fn finish(bench: Bench, serial: &Serial) -> Result<()> {
    eprintln!("\nconsole: {}\ncontroller: {}", serial.path().display(), bench.controller.log().display());
    let Bench { controller, scratch } = bench;
    controller.ferric(&["node", "power", "off", "demo"])?;
    drop(controller);
    scratch.keep();
    Ok(())
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The controller's marks and ours, in seconds since power on.
fn table(timeline: &Value, more: &[(&str, f64)]) -> String {
    let mut marks: Vec<(String, f64)> = Vec::new();
    for mark in timeline.as_array().into_iter().flatten() {
        let name = mark.get("mark").and_then(Value::as_str);
        let at = mark.get("at").and_then(Value::as_f64);
        marks.extend(name.map(str::to_owned).zip(at));
    }
    marks.extend(more.iter().map(|(name, at)| ((*name).to_owned(), *at)));
    marks.sort_by(|left, right| left.1.total_cmp(&right.1));
    let start = marks.iter().find(|(name, _)| name == "power on").map_or(0.0, |(_, at)| *at);
    let width = marks.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut before = start;
    let mut text = String::new();
    for (name, at) in &marks {
        text += &format!("  {name:width$}  {:7.1} s  {:+7.1}\n", at - start, at - before);
        before = *at;
    }
    text
}
