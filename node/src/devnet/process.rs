//! The processes of a devnet: started, looked after, stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::io_error;
use super::{DevNode, DevnetError, get};

/// How long a process may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A child process with a log. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// What it is called.
    pub name: String,
    /// What it says, line by line.
    pub log: PathBuf,
    /// Bytes of the log that are of earlier processes.
    said_before: u64,
    child: Child,
}

impl Daemon {
    /// Starts a program, of which the log gets everything that it says.
    ///
    /// # Errors
    /// [`DevnetError::Start`], or its log cannot be opened.
    pub fn start(name: &str, log: &Path, mut command: Command) -> Result<Self, DevnetError> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.map_err(|source| io_error(log, "opened", source))?;
        let said_before = file.metadata().map_or(0, |metadata| metadata.len());
        let errors = file.try_clone().map_err(|source| io_error(log, "opened", source))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn();
        let child = child.map_err(|source| DevnetError::Start { program: command.get_program().into(), source })?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), said_before, child })
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// [`DevnetError::Ended`].
    pub fn check(&mut self) -> Result<(), DevnetError> {
        let how = match self.child.try_wait() {
            Ok(None) => return Ok(()),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let (name, log) = (self.name.clone(), self.log.clone());
        Err(DevnetError::Ended { name, how, last_line: last_line(&log, self.said_before), log })
    }

    /// Asks the process to stop.
    pub fn terminate(&self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended already.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }

    /// Waits until the process has stopped, and kills it if that takes too long. Returns whether it stopped well.
    pub fn wait(mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running node of a devnet. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// The node.
    pub node: DevNode,
    daemon: Daemon,
}

impl Process {
    /// Starts a node with this program, which is `causeway` itself.
    ///
    /// # Errors
    /// [`DevnetError::Start`], or its log cannot be opened.
    pub fn start(program: &Path, node: &DevNode) -> Result<Self, DevnetError> {
        Self::start_with(program, node, &[])
    }

    /// Starts a node with more arguments.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_with(program: &Path, node: &DevNode, arguments: &[&str]) -> Result<Self, DevnetError> {
        let mut command = Command::new(program);
        command.arg("run").arg("--home").arg(&node.home).arg("--end-with-parent").args(arguments);
        Ok(Self { node: node.clone(), daemon: Daemon::start(&node.name, &node.log, command)? })
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Fails if the node has ended.
    ///
    /// # Errors
    /// [`DevnetError::Ended`].
    pub fn check(&mut self) -> Result<(), DevnetError> {
        self.daemon.check()
    }

    /// Waits until the node answers.
    ///
    /// # Errors
    /// It ends or stays silent.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<(), DevnetError> {
        const PATH: &str = "/v1/status";
        let started = Instant::now();
        loop {
            self.check()?;
            if get(&self.node.rest, PATH).is_some() {
                return Ok(());
            }
            if started.elapsed() > timeout {
                let url = format!("{}{PATH}", self.node.rest);
                let (name, seconds, log) = (self.node.name.clone(), timeout.as_secs(), self.node.log.clone());
                return Err(DevnetError::Silent { name, url, seconds, log });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the node to stop.
    pub fn terminate(&self) {
        self.daemon.terminate();
    }

    /// Waits until the node has stopped, and kills it if that takes too long. Returns whether it stopped well.
    pub fn wait(self) -> bool {
        self.daemon.wait()
    }

    /// Kills the node at once (SIGKILL).
    pub fn kill(self) {
        drop(self);
    }

    /// The node's process, without the node.
    pub fn into_daemon(self) -> Daemon {
        self.daemon
    }
}

/// The last line that is not empty behind the first `from` bytes of a file.
fn last_line(path: &Path, from: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let said = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
    let text = String::from_utf8_lossy(said);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_what_was_said_this_time() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        fs::write(&log, "of an earlier time\n").unwrap();
        let ended = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(script);
            let mut daemon = Daemon::start("sh", &log, command).unwrap();
            let started = Instant::now();
            loop {
                match daemon.check() {
                    Ok(()) => assert!(started.elapsed() < STOP_TIMEOUT),
                    Err(error) => return error.to_string(),
                }
            }
        };
        let error = ended("exit 3");
        assert!(error.contains("(exit status: 3)") && error.contains("last line is \"\""), "{error}");
        let error = ended("echo first; echo last >&2; kill -9 $$");
        assert!(error.contains("SIGKILL") && error.contains("last line is \"last\""), "{error}");
    }
}
