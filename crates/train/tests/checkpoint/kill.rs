//! Processes that are killed while they save.
//!
//! The test starts this executable again as the one who saves: it announces every operation through a pipe before it does
//! it, and the test kills it at a number of operations that a seed chooses.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use train::checkpoint::{Checkpoints, Disk, Fallback, NewFile, Storage};

use super::{check, save};

const N_KILLS: u32 = 20;
/// Weights: several writes a file.
const LEN: usize = 150_000;
/// Set for the process that saves until it is killed.
const FOLDER: &str = "PUNA_TEST_SAVES_IN";

/// The file system, and a line on the standard output before every operation.
struct Announced;

fn announce(what: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

struct AnnouncedFile(Box<dyn NewFile>);

impl Write for AnnouncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        announce("operation")?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl NewFile for AnnouncedFile {
    fn sync(&mut self) -> io::Result<()> {
        announce("operation")?;
        self.0.sync()
    }
}

impl Storage for Announced {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        announce("operation")?;
        Disk.create_folder(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        announce("operation")?;
        Ok(Box::new(AnnouncedFile(Disk.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        Disk.open(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        Disk.list(folder)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        announce("operation")?;
        Disk.sync_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        announce("operation")?;
        Disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        announce("operation")?;
        Disk.remove_file(path)
    }
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        announce("operation")?;
        Disk.remove_folder(path)
    }
}

/// Saves one step after the other, from what is there, until it is killed; once where nobody asked.
#[test]
fn saving_goes_on_from_what_is_there() -> Result<()> {
    let asked = std::env::var_os(FOLDER);
    let own = tempfile::tempdir()?;
    let folder = asked.as_deref().map_or(own.path(), Path::new);
    let checkpoints = Checkpoints::open(Announced, folder)?;
    let mut step = checkpoints.load(Fallback::Refuse)?.map_or(0, |loaded| loaded.step);
    loop {
        step += 1;
        save(&checkpoints, step, LEN)?;
        announce(&format!("saved {step}"))?;
        if asked.is_none() {
            break;
        }
    }
    let loaded = checkpoints.load(Fallback::Refuse)?.context("a checkpoint")?;
    ensure!(loaded.step == 1);
    check(&loaded, LEN)
}

#[test]
fn a_process_that_is_killed_while_it_saves_loses_no_checkpoint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let seed = 20;
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let (mut n_amid, mut last_saved) = (0, 0);
    for kill in 0..N_KILLS {
        let mut saver = Command::new(std::env::current_exe()?)
            .args(["--exact", "kill::saving_goes_on_from_what_is_there", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(saver.stdout.take().context("a pipe")?).lines();
        let mut n_left: u32 = draw.random_range(1..100);
        let mut note = |line: &str| -> Result<()> {
            if let Some(step) = line.strip_prefix("saved ") {
                last_saved = step.parse()?;
            }
            Ok(())
        };
        while n_left > 0 {
            let line = lines.next().context("the saver ended by itself")??;
            note(&line)?;
            n_left -= u32::from(line.ends_with("operation"));
        }
        saver.kill()?;
        let status = saver.wait()?;
        ensure!(status.code().is_none(), "kill {kill}: the saver ended by itself: {status}");
        // What it had still said.
        for line in lines {
            note(&line?)?;
        }
        let entries = Disk.list(folder.path())?;
        n_amid += u32::from(entries.iter().any(|name| name.ends_with(".tmp") || name.ends_with(".old")));
        let loaded = Checkpoints::open(Disk, folder.path())?.load(Fallback::Refuse)?;
        let step = loaded.as_ref().map_or(0, |loaded| loaded.step);
        // The rename may be done and the line not be written.
        ensure!(step == last_saved || step == last_saved + 1, "kill {kill}: {last_saved} was saved, {step} loads");
        loaded.map_or(Ok(()), |loaded| check(&loaded, LEN))?;
        // The next saver goes on from what loads, said or not.
        last_saved = step;
    }
    println!("{N_KILLS} kills (seed {seed}), {n_amid} amid a save; {last_saved} steps saved, none lost");
    ensure!(n_amid > 0 && last_saved > 0);
    Ok(())
}
