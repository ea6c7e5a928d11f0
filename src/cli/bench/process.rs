//! Servers under measurement: child processes of this executable, each on a core of its own, and what they cost by /proc.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long a server may take to end after SIGTERM before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The two cores of a benchmark: what is measured runs on one, whoever asks runs on the other.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    pub server: usize,
    pub client: usize,
}

impl Cores {
    /// The first two that we may run on; `None` when there is only one, and then nobody is pinned.
    pub fn choose() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Some(Self { server: cores.next()?, client: cores.next()? })
    }
}

/// Runs `work` with this thread on one core; threads and processes that it starts stay there too.
pub fn on_core<T>(core: Option<usize>, work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).ok();
    if let Some(core) = core {
        let mut only = CpuSet::new();
        only.set(core);
        // Refused in some sandboxes: then the figures are noisier, and no less true.
        let _ = sched_setaffinity(None, &only);
    }
    let result = work();
    if let Some(before) = before {
        let _ = sched_setaffinity(None, &before);
    }
    result
}

/// A child process that is stopped when it is dropped. Its standard input is a pipe that only this process holds the other end of, and
/// every server of a benchmark ends with it: also when nothing is dropped, because the benchmark was killed.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts this executable with these arguments on `core`. Its log goes to `dir/name.log`.
    pub fn start<S: AsRef<std::ffi::OsStr>>(name: &str, args: &[S], core: Option<usize>, dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this executable is not known")?;
        let log = dir.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let child = on_core(core, || command.spawn()).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// What it says on its standard output, line by line, and what it listens to.
    pub fn talk(&mut self) -> anyhow::Result<(ChildStdin, BufReader<ChildStdout>)> {
        let pipes = self.child.stdin.take().zip(self.child.stdout.take());
        let (stdin, stdout) = pipes.with_context(|| format!("{} has been talked to before", self.name))?;
        Ok((stdin, BufReader::new(stdout)))
    }

    /// The first line that it prints.
    pub fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.as_mut().with_context(|| format!("{} has been talked to before", self.name))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} ended before it was ready:\n{}", self.name, self.log_tail());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Asks `ready` until it says yes.
    pub fn wait_until<T>(&mut self, within: Duration, mut ready: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.log_tail());
            }
            if started.elapsed() > within {
                bail!("{} was not ready within {} s:\n{}", self.name, within.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// CPU time of all its threads that live, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Resident set, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmRSS"))? * 1024)
    }

    /// Ends it as a supervisor would, and waits until it is gone.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    /// Ends it without a warning.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("the process has no id")?;
        kill_process(pid, signal)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_WITHIN {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{} did not end within {} s after SIGTERM and was killed", self.name, STOP_WITHIN.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only left to do when a benchmark failed before its end; that error is the one to tell.
        let _ = self.end(Signal::TERM);
    }
}

/// Summed over the threads: /proc/PID/stat counts in ticks of 10 ms, too coarse for a run of half a second.
fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        // A thread may end between the listing and the reading.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total +=
            on_cpu(&schedstat).context("/proc/PID/task/TID/schedstat has no CPU time: this kernel was built without CONFIG_SCHED_INFO")?;
    }
    Ok(total)
}

/// The first number is nanoseconds on a CPU.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_cpu_time_of_its_thread() {
        let spent = || on_cpu(&fs::read_to_string("/proc/thread-self/schedstat").unwrap()).unwrap();
        let before = spent();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(spent() > before);
        assert!(cpu_of(std::process::id()).unwrap() > Duration::ZERO);
    }
}
