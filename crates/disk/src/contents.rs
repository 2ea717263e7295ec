//! What a disk holds, in words: what writing to it would destroy.

use std::fmt;

use crate::hints::gib_text;
use crate::probe::{FileSystem, probe};
use crate::table::{Partition, Table};
use crate::{Error, Region, Source};

/// What was found on a disk. Made to be printed; for decisions use [`Table`] and [`probe`].
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// `gpt`, `dos`, `none`, or why it can not be told.
    pub table: String,
    /// Its partitions and what is in them.
    pub partitions: Vec<PartitionContents>,
    /// What lies on the disk as a whole, without partitions.
    pub whole: Option<FileSystem>,
}

/// A partition and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionContents {
    /// Where.
    pub partition: Partition,
    /// What.
    pub file_system: Option<FileSystem>,
}

impl Contents {
    /// Reads the partition table and probes each partition and the whole.
    pub fn read<S: Source + ?Sized>(source: &S, sector_bytes: u32) -> Self {
        let table = match Table::read(source, sector_bytes) {
            Ok(table) => table,
            Err(error) => return Self { whole: probe(source), ..Self::unreadable(&error) },
        };
        let describe = |partition: &Partition| PartitionContents {
            file_system: probe(&Region::new(source, partition.start_byte, partition.size_byte)),
            partition: partition.clone(),
        };
        Self {
            table: table.kind().into(),
            partitions: table.partitions().iter().map(describe).collect(),
            whole: probe(source),
        }
    }

    pub(crate) fn unreadable(error: &Error) -> Self {
        Self { table: error.to_string(), partitions: Vec::new(), whole: None }
    }

    /// Whether nothing was recognised.
    pub fn is_empty(&self) -> bool {
        self.table == "none" && self.whole.is_none()
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing that is known");
        }
        let mut lines = Vec::new();
        if let Some(whole) = &self.whole {
            lines.push(format!("{whole} on the whole disk"));
        }
        if self.table != "none" {
            lines.push(format!("partition table {} with {} partitions", self.table, self.partitions.len()));
        }
        for PartitionContents { partition, file_system } in &self.partitions {
            let mut line = format!("partition {}: {}", partition.number, gib_text(partition.size_byte));
            if !partition.name.is_empty() {
                line.push_str(&format!(", named `{}`", partition.name));
            }
            match file_system {
                Some(file_system) => line.push_str(&format!(", {file_system}")),
                None => line.push_str(", unknown content"),
            }
            lines.push(line);
        }
        f.write_str(&lines.join("\n"))
    }
}
