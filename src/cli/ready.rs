//! Where a process listens, told to whoever started it: a line on standard output, and a file for programs.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::exit::{Failure, innermost};
use super::replace::Replacement;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Write the addresses to this file as JSON once they are bound; a pipe may be given too. It is removed at the end
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

/// What the ready file and, with `--output json`, the first line of output say. Its names are an interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    pub pid: u32,
    pub environment: Option<String>,
    pub control: Option<Control>,
    pub sidecars: Vec<Sidecar>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    pub grpc: SocketAddr,
    /// `null`: nowhere.
    pub webhooks: Option<SocketAddr>,
    pub data: PathBuf,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    pub pod: Option<String>,
    pub tcp: SocketAddr,
    pub socket: Option<PathBuf>,
    pub management: SocketAddr,
    /// `null`: nowhere.
    pub ofrep: Option<SocketAddr>,
    /// `null`: nowhere.
    pub sync: Option<SocketAddr>,
}

/// Removes the file when it goes: addresses of a process that has ended mislead.
#[must_use = "the file is removed when this is dropped"]
pub struct Announced(Option<PathBuf>);

impl Args {
    /// A reader sees the whole content or no file. What is there already and is no file (a pipe, /dev/stdout) is written to.
    pub fn announce(&self, addresses: &Addresses) -> Result<Announced, Failure> {
        let Some(path) = &self.ready_file else { return Ok(Announced(None)) };
        let unwritable =
            |error: io::Error| Failure::unable(format!("cannot write the ready file {}: {}", path.display(), innermost(&error)));
        let mut line = serde_json::to_vec(addresses).map_err(|error| unwritable(error.into()))?;
        line.push(b'\n');
        let mut target = Replacement::of(path).map_err(unwritable)?;
        target.write_all(&line).and_then(|()| target.finish()).map(Announced).map_err(unwritable)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_as_long_as_the_process_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let addresses = Addresses { pid: 7, environment: None, control: None, sidecars: Vec::new() };
        let announced = Args { ready_file: Some(path.clone()) }.announce(&addresses).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["pid"], 7);
        drop(announced);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let path = PathBuf::from("/nonexistent/ready.json");
        let addresses = Addresses { pid: 7, environment: None, control: None, sidecars: Vec::new() };
        let failure = Args { ready_file: Some(path) }.announce(&addresses).err().unwrap();
        assert!(failure.message.contains("/nonexistent/ready.json"), "{}", failure.message);
    }
}
