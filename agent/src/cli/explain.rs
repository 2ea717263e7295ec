//! `ferric-agent explain`: which disk the root device hints pick and why, whether it may be written here, and what a write
//! would destroy. Nothing is written.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use disk::{Contents, Device, Policy, Target, Verdict};
use events::Events;
use hardware_managers::{Deployment, Settings};
use hwm::Context;
use serde_json::{Value, json};
use sys::Host;

use super::offline::{Failed, allow_list, finish, human_bytes, log_warnings, print_json, print_line};

/// Explain which disk an image would go to, and what would be destroyed, without touching anything.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Root device hints as JSON, for example '{"serial": "ABC"}'; none means the smallest disk of at least 4 GiB.
    #[arg(long, value_name = "JSON")]
    pub hints: Option<String>,
    /// The only disks that may be written; the kernel parameter ferric-disks= by default.
    #[arg(long, value_name = "ALLOWED")]
    pub disks: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Looks, and prints.
pub fn run(args: ExplainArgs) -> ExitCode {
    log_warnings();
    finish(explain(&args)).into()
}

fn explain(args: &ExplainArgs) -> Result<(), Failed> {
    let host = Host::real();
    let hints: Value = match &args.hints {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Failed::usage(format!("--hints is not JSON ({error}): write '{{\"serial\": \"ABC\"}}'"))
        })?,
    };
    let settings = Settings { allow: allow_list(&host, args.disks.as_deref())?, ..Settings::default() };
    let deployment = Deployment::new(settings);
    let cx =
        Context::new(host, Events::default()).with_node(json!({ "instance_info": { "root_device": hints } }));
    let selection = deployment.select(&cx)?;
    let policy = deployment.policy(&cx);
    let candidates: Vec<Candidate<'_>> =
        selection.verdicts.iter().map(|verdict| Candidate::look(&cx.host, verdict, &policy)).collect();
    let chosen = selection.chosen.as_ref().map(|disk| disk.name.as_str());
    if args.json {
        let disks: Vec<Value> = candidates.iter().map(|c| c.to_json(chosen)).collect();
        return print_json(
            &json!({ "chosen": chosen, "in_ramdisk": policy.in_ramdisk, "disks": disks }),
            false,
        );
    }
    print_line(report(&candidates, chosen, &policy).trim_end())
}

/// A disk, what the hints say of it, and what a look at it says.
struct Candidate<'a> {
    verdict: &'a Verdict,
    /// Why it may not be written here; none when it may.
    refusal: Option<String>,
    contents: Result<Contents, String>,
}

impl<'a> Candidate<'a> {
    fn look(host: &Host, verdict: &'a Verdict, policy: &Policy) -> Self {
        let contents = Device::open(&host.path(&verdict.disk.name))
            .map(|device| Contents::read(&device, device.sector_bytes()))
            .map_err(|error| hwm::chain(&error));
        let refusal = Target::claim(host, &verdict.disk, policy).err().map(|refusal| hwm::chain(&refusal));
        Self { verdict, refusal, contents }
    }

    fn contents(&self) -> String {
        match &self.contents {
            Ok(contents) => contents.to_string(),
            Err(error) => format!("unknown ({error})"),
        }
    }

    fn to_json(&self, chosen: Option<&str>) -> Value {
        let disk = &self.verdict.disk;
        json!({
            "disk": disk,
            "chosen": chosen == Some(disk.name.as_str()),
            "matched": self.verdict.matched,
            "reasons": self.verdict.reasons,
            "writable": self.refusal.is_none(),
            "refusal": self.refusal,
            "would_destroy": self.contents().lines().collect::<Vec<_>>(),
        })
    }
}

fn report(candidates: &[Candidate<'_>], chosen: Option<&str>, policy: &Policy) -> String {
    let mut text = String::new();
    for candidate in candidates {
        let disk = &candidate.verdict.disk;
        let is_chosen = chosen == Some(disk.name.as_str());
        let mark = if is_chosen { "=>" } else { "  " };
        let known = [&disk.vendor, &disk.model].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let serial = disk.serial.as_deref().map(|serial| format!(", serial {serial}")).unwrap_or_default();
        // Writing into a String does not fail.
        let _ = writeln!(text, "{mark} {}  {}  {known}{serial}", disk.name, human_bytes(disk.size));
        let _ = writeln!(
            text,
            "     {}: {}",
            standing(candidate, is_chosen),
            candidate.verdict.reasons.join("; ")
        );
        match &candidate.refusal {
            None => _ = writeln!(text, "     may be written here"),
            Some(refusal) => _ = writeln!(text, "     may not be written here: {refusal}"),
        }
        let contents = candidate.contents().replace('\n', "\n       ");
        let _ = writeln!(text, "     a write would destroy: {contents}");
    }
    let place =
        if policy.in_ramdisk { "a ramdisk" } else { "an ordinary system, where an allow-list is mandatory" };
    let _ = writeln!(text, "this is {place}");
    let refused = candidates
        .iter()
        .find(|candidate| chosen == Some(candidate.verdict.disk.name.as_str()))
        .is_some_and(|candidate| candidate.refusal.is_some());
    let _ = match (chosen, refused) {
        (None, _) => writeln!(text, "no disk would be chosen"),
        (Some(name), true) => writeln!(text, "{name} would be chosen, and writing to it refused"),
        (Some(name), false) => writeln!(text, "{name} would be chosen and written"),
    };
    text
}

fn standing(candidate: &Candidate<'_>, is_chosen: bool) -> &'static str {
    match (is_chosen, candidate.verdict.matched) {
        (true, _) => "chosen",
        (false, true) => "suitable, but another comes first",
        (false, false) => "not suitable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, matched: bool, reason: &str) -> Verdict {
        let disk = wire::Disk { name: name.into(), size: 8 << 30, ..wire::Disk::default() };
        Verdict { disk, matched, reasons: vec![reason.into()] }
    }

    #[test]
    fn the_report_says_for_each_disk_why_and_what_would_be_lost() {
        let verdicts = [
            verdict("/dev/sda", true, "8 GiB is large enough"),
            verdict("/dev/sdb", true, "8 GiB is large enough"),
            verdict("/dev/sdc", false, "is not on the allow-list `/dev/sda`"),
        ];
        let candidate = |index: usize, refusal: Option<&str>| Candidate {
            verdict: &verdicts[index],
            refusal: refusal.map(str::to_owned),
            contents: Err("permission denied".into()),
        };
        let candidates = [candidate(0, None), candidate(1, None), candidate(2, Some("it is mounted"))];
        let policy = Policy { allow: None, in_ramdisk: true };
        let text = report(&candidates, Some("/dev/sda"), &policy);
        for part in [
            "=> /dev/sda  8.0 GiB",
            "chosen: 8 GiB is large enough",
            "suitable, but another comes first",
            "not suitable: is not on the allow-list",
            "may not be written here: it is mounted",
            "a write would destroy: unknown (permission denied)",
            "/dev/sda would be chosen and written",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        let text = report(&candidates, Some("/dev/sdc"), &policy);
        assert!(text.contains("writing to it refused"), "{text}");
        assert!(report(&[], None, &policy).contains("no disk would be chosen"));
    }
}
