//! The lines of decision logs, one after the other.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use owo_colors::OwoColorize as _;
use serde::Serialize;

use crate::cli::exit::{Failure, innermost};
use crate::cli::output::{Out, count};
use crate::telemetry::decisions::{EXTENSION, Line, is_of_the_log};

/// Where the logs lie.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Directory of a decision log, or of several as `yardarm dev` has them; several may be given
    #[arg(long = "log", env = "YARDARM_DECISION_LOG", value_name = "DIR", value_delimiter = ',', default_value = ".yardarm/decisions")]
    pub dirs: Vec<PathBuf>,
}

/// What was read.
#[derive(Debug, Default, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Read {
    pub files: usize,
    pub lines: u64,
    /// Lines that are none of a decision log.
    pub unreadable: u64,
}

impl Logs {
    /// Each line of each file, the files of a directory in their order. The end of a file that is being written to is left out.
    pub fn each(&self, mut take: impl FnMut(&Line<'_>)) -> Result<Read, Failure> {
        let mut files = Vec::new();
        for dir in &self.dirs {
            find(dir, true, &mut files).map_err(|error| {
                Failure::unable(format!(
                    "cannot read the decision log in {}: {}; say where it is with --log",
                    dir.display(),
                    innermost(&error)
                ))
            })?;
        }
        if files.is_empty() {
            let dirs: Vec<_> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
            return Err(Failure::unable(format!(
                "there is no decision log in {}: expected files named decisions-*.{EXTENSION}, as a sidecar with --decision-log writes them",
                dirs.join(", ")
            )));
        }
        files.sort();
        let mut read = Read::default();
        for path in files {
            match File::open(&path) {
                Ok(file) => read_file(file, &mut read, &mut take)
                    .map_err(|error| Failure::unable(format!("cannot read {}: {}", path.display(), innermost(&error))))?,
                // The oldest ones go while others are written.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Failure::unable(format!("cannot read {}: {}", path.display(), innermost(&error)))),
            }
            read.files += 1;
        }
        Ok(read)
    }
}

impl Read {
    pub fn note(&self, out: &Out) {
        if self.unreadable > 0 {
            let lines = count(usize::try_from(self.unreadable).unwrap_or(usize::MAX), "line");
            out.note(
                format!("{lines} of {} could not be read and {} left out", self.lines, if self.unreadable == 1 { "is" } else { "are" })
                    .yellow(),
            );
        }
    }
}

/// In the directory and, of several pods, in those right below it.
fn find(dir: &Path, with_pods: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if with_pods {
                find(&path, false, files)?;
            }
        } else if is_of_the_log(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn read_file(file: File, read: &mut Read, take: &mut impl FnMut(&Line<'_>)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(64 * 1024, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
            return Ok(());
        }
        read.lines += 1;
        match serde_json::from_slice(&line) {
            Ok(line) => take(&line),
            Err(_) => read.unreadable += 1,
        }
    }
}
