//! `ferric-agent explain`: which disk the root device hints pick and why, whether it may be written here, and what a write
//! would destroy. Nothing is written.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use disk::{Contents, Device, HintVerdict, Policy, Target, Verdict};
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
    /// The node's skip_block_devices as JSON, for example '[{"vendor": "ATA"}, {"volume_name": "data"}]'.
    #[arg(long, value_name = "JSON")]
    pub skip: Option<String>,
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
    let hints = given("--hints", args.hints.as_deref(), "'{\"serial\": \"ABC\"}'")?;
    let skip = given("--skip", args.skip.as_deref(), "'[{\"vendor\": \"ATA\"}]'")?;
    let settings = Settings { allow: allow_list(&host, args.disks.as_deref())?, ..Settings::default() };
    let deployment = Deployment::new(settings);
    let node = json!({
        "instance_info": { "root_device": hints },
        "properties": { "skip_block_devices": skip },
    });
    let cx = Context::new(host, Events::default()).with_node(node);
    let selection = deployment.select(&cx)?;
    let policy = deployment.policy(&cx);
    let candidates: Vec<Candidate<'_>> =
        selection.verdicts.iter().map(|verdict| Candidate::look(&cx.host, verdict, &policy)).collect();
    let chosen = selection.chosen.as_ref().map(|disk| disk.name.as_str());
    if args.json {
        let disks: Vec<Value> = candidates.iter().map(|c| c.to_json(chosen)).collect();
        let paths = selection.paths.as_ref().map(|paths| &paths.devices);
        let all =
            json!({ "chosen": chosen, "paths": paths, "in_ramdisk": policy.in_ramdisk, "disks": disks });
        return print_json(&all, false);
    }
    print_line(report(&candidates, chosen, &policy).trim_end())
}

/// JSON of an option; null without it.
fn given(option: &str, text: Option<&str>, example: &str) -> Result<Value, Failed> {
    let Some(text) = text else { return Ok(Value::Null) };
    serde_json::from_str(text)
        .map_err(|error| Failed::usage(format!("{option} is not JSON ({error}): write {example}")))
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
            "hints": self.verdict.hints.iter().map(hint_to_json).collect::<Vec<_>>(),
            "reasons": self.verdict.reasons,
            "writable": self.refusal.is_none(),
            "refusal": self.refusal,
            "would_destroy": self.contents().lines().collect::<Vec<_>>(),
        })
    }
}

fn hint_to_json(verdict: &HintVerdict) -> Value {
    json!({
        "hint": verdict.hint,
        "wanted": verdict.wanted,
        "found": verdict.found,
        "matched": verdict.matched,
    })
}

/// One line for each hint, in columns.
fn hint_lines(hints: &[HintVerdict]) -> String {
    let width = |text: fn(&HintVerdict) -> &str| {
        hints.iter().map(|hint| text(hint).chars().count()).max().unwrap_or(0)
    };
    let (name, wanted) = (width(|hint| hint.hint), width(|hint| &hint.wanted));
    let line = |hint: &HintVerdict| {
        let mark = if hint.matched { "yes" } else { "no " };
        let found = if hint.found.is_empty() { "nothing".into() } else { hint.found.join(" or ") };
        format!("       {mark}  {:name$}  wanted: {:wanted$}  found: {found}\n", hint.hint, hint.wanted)
    };
    hints.iter().map(line).collect()
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
        let reasons = candidate.verdict.reasons.join("; ");
        let separator = if reasons.is_empty() { "" } else { ": " };
        let _ = writeln!(text, "     {}{separator}{reasons}", standing(candidate, is_chosen));
        text.push_str(&hint_lines(&candidate.verdict.hints));
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
        Verdict { disk, matched, hints: Vec::new(), reasons: vec![reason.into()] }
    }

    #[test]
    fn every_hint_has_a_line_with_its_verdict() {
        let hint = |hint, wanted: &str, found: &[&str], matched| HintVerdict {
            hint,
            wanted: wanted.into(),
            found: found.iter().map(ToString::to_string).collect(),
            matched,
        };
        let hints = [
            hint("size", ">= 100", &["8 GiB"], false),
            hint("serial", "ABC", &["ABC", "Foo_ABC"], true),
            hint("wwn", "0x5", &[], false),
        ];
        let expected = "       no   size    wanted: >= 100  found: 8 GiB
       yes  serial  wanted: ABC     found: ABC or Foo_ABC
       no   wwn     wanted: 0x5     found: nothing
";
        assert_eq!(hint_lines(&hints), expected);
        let verdict =
            Verdict { hints: hints.to_vec(), ..verdict("/dev/sda", false, "is part of the array /dev/md0") };
        let candidate = Candidate { verdict: &verdict, refusal: None, contents: Err("no".into()) };
        let value = candidate.to_json(None);
        assert_eq!(
            value["hints"][0],
            json!({"hint": "size", "wanted": ">= 100", "found": ["8 GiB"], "matched": false})
        );
        assert_eq!(value["reasons"], json!(["is part of the array /dev/md0"]));
        let policy = Policy { allow: None, in_ramdisk: true };
        let text = report(&[candidate], None, &policy);
        assert!(text.contains(&format!("not suitable: is part of the array /dev/md0\n{expected}")), "{text}");
    }

    #[test]
    fn what_is_no_json_is_told_with_an_example() {
        assert_eq!(given("--hints", None, "x").unwrap(), Value::Null);
        let failed = given("--skip", Some("sda"), "'[...]'").unwrap_err();
        assert!(
            failed.message.starts_with("--skip is not JSON") && failed.message.ends_with("write '[...]'")
        );
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
