//! The file system of the ephemeral partition: made by the tool of its kind; ext4 here, where there is no tool. Source: data plane page, 3.3 and 3.4.

use std::time::Duration;

use disk::partition_path;
use hwm::Error;
use sys::{CommandLine, Host};

pub(super) const LABEL: &str = "ephemeral0";
/// What the conductor takes where nothing is said.
const DEFAULT: &str = "ext4";
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Making a file system writes little, but a slow disk of many TiB takes its time.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Who makes the wanted file system.
#[derive(Debug)]
pub(super) enum Maker {
    /// A program of the ramdisk.
    Tool(Tool),
    /// [`disk::format::make_ext4`].
    BuiltIn,
}

/// A program that makes file systems of one kind.
#[derive(Debug)]
pub(super) struct Tool {
    program: String,
    options: &'static [&'static str],
}

impl Maker {
    /// The tool of this kind, if the ramdisk has it; what needs none otherwise. Called before anything is written.
    pub(super) fn find(host: &Host, format: Option<&str>) -> Result<Self, Error> {
        let format = format.unwrap_or(DEFAULT);
        let invalid = |message: String| Error::InvalidParameters { message };
        if format.is_empty() || !format.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(invalid(format!("ephemeral_format `{format}` is no name of a file system")));
        }
        let name = format!("mkfs.{format}");
        let program = DIRECTORIES
            .iter()
            .map(|directory| format!("{directory}/{name}"))
            .find(|path| host.path(path).exists());
        match program {
            Some(program) => Ok(Self::Tool(Tool { program, options: options(format) })),
            None if format == DEFAULT => Ok(Self::BuiltIn),
            None => Err(invalid(format!(
                "no ephemeral partition can be made with {format}: this ramdisk has no {name}; add it to the ramdisk \
                 (ferric-image build --add), or set ephemeral_format to ext4; nothing was written"
            ))),
        }
    }
}

impl Tool {
    /// **Makes the file system** on a partition whose node is there.
    pub(super) fn make(&self, host: &Host, device: &str, number: u32) -> Result<(), Error> {
        let node = partition_path(device, number);
        tracing::info!(program = self.program, node, "making the ephemeral file system");
        let mut argv = vec![self.program.as_str()];
        argv.extend(self.options);
        argv.extend([LABEL, &node]);
        host.runner()
            .run(&CommandLine::new(argv).limit(LIMIT))
            .map(drop)
            .map_err(|error| Error::other(format!("making the ephemeral file system on {node}"), error))
    }
}

/// What makes a tool take a partition without a question, and its way to name a label, which comes next.
fn options(format: &str) -> &'static [&'static str] {
    match format {
        "ext2" | "ext3" | "ext4" => &["-q", "-F", "-L"],
        "xfs" | "btrfs" => &["-q", "-f", "-L"],
        "vfat" | "msdos" | "fat" => &["-n"],
        _ => &["-L"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sys::fake::{FakeRunner, RecordingKernel};

    fn machine(tool: &str, runner: FakeRunner) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let tool = root.path().join(tool);
        std::fs::create_dir_all(tool.parent().unwrap()).unwrap();
        std::fs::write(tool, "").unwrap();
        let host = Host::new(root.path(), Arc::new(runner), Arc::new(RecordingKernel::default()));
        (root, host)
    }

    #[test]
    fn a_missing_tool_is_named_before_anything_happens() {
        let (_root, host) = machine("sbin/mkfs.ext4", FakeRunner::default());
        assert!(matches!(Maker::find(&host, None), Ok(Maker::Tool(_))), "ext4 is the default");
        let bare = sys::fake::host("/nonexistent");
        assert!(matches!(Maker::find(&bare, Some("ext4")), Ok(Maker::BuiltIn)), "and needs no tool");
        let error = Maker::find(&host, Some("xfs")).unwrap_err().to_string();
        assert!(error.contains("no mkfs.xfs") && error.contains("nothing was written"), "{error}");
        for wrong in ["../../bin/sh", "", "a b"] {
            assert!(
                matches!(Maker::find(&host, Some(wrong)), Err(Error::InvalidParameters { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn every_kind_is_made_without_a_question_and_with_the_label() {
        for (kind, arguments) in [
            ("ext2", "-q -F -L"),
            ("ext3", "-q -F -L"),
            ("ext4", "-q -F -L"),
            ("xfs", "-q -f -L"),
            ("btrfs", "-q -f -L"),
            ("vfat", "-n"),
            ("other", "-L"),
        ] {
            let command = format!("/sbin/mkfs.{kind} {arguments} ephemeral0 /dev/sda2");
            let (_root, host) =
                machine(&format!("sbin/mkfs.{kind}"), FakeRunner::default().answer(&command, ""));
            let Ok(Maker::Tool(tool)) = Maker::find(&host, Some(kind)) else { panic!("{kind}") };
            tool.make(&host, "/dev/sda", 2).unwrap();
        }
    }

    #[test]
    fn the_tool_is_asked_for_the_label_and_its_failure_is_told() {
        let command = "/usr/sbin/mkfs.ext4 -q -F -L ephemeral0 /dev/nvme0n1p2";
        let (_root, host) = machine("usr/sbin/mkfs.ext4", FakeRunner::default().answer(command, ""));
        let tool = |host, format| match Maker::find(host, Some(format)) {
            Ok(Maker::Tool(tool)) => tool,
            other => panic!("{other:?}"),
        };
        tool(&host, "ext4").make(&host, "/dev/nvme0n1", 2).unwrap();
        let runner = FakeRunner::default().fail("/sbin/mkfs.xfs -q -f -L ephemeral0 /dev/sda1", "no space");
        let (_root, host) = machine("sbin/mkfs.xfs", runner);
        let error = tool(&host, "xfs").make(&host, "/dev/sda", 1).unwrap_err();
        assert!(hwm::chain(&error).contains("no space"), "{error}");
    }
}
