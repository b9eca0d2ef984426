//! Journal: which lines of a file have been answered, so that a run that was interrupted goes on where it stopped.
//!
//! A text file beside the requests, one digest a line; what is half written at its end counts as not answered.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::warm::lines::Digested;

/// What the name of a journal adds to that of the file it is about.
const ENDING: &str = ".warmed";

/// The journal of one file of requests.
#[derive(Debug)]
pub struct Journal {
    answered: HashSet<Digested>,
    file: File,
}

impl Journal {
    /// Where the journal of a file of requests is.
    #[must_use]
    pub fn path(requests: &Path) -> PathBuf {
        let mut name = requests.as_os_str().to_owned();
        name.push(ENDING);
        name.into()
    }

    /// Opens the journal of a file of requests, or begins one.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(requests: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(Self::path(requests))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let digest = |line: &str| (line.len() == 16).then(|| u64::from_str_radix(line, 16).ok()).flatten();
        let answered = text.lines().filter_map(digest).map(Digested).collect();
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { answered, file })
    }

    /// Removes the journal of a file of requests, if there is one.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(requests: &Path) -> io::Result<()> {
        match std::fs::remove_file(Self::path(requests)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The lines that have been answered until now.
    #[must_use]
    pub const fn answered(&self) -> &HashSet<Digested> {
        &self.answered
    }

    /// A line has been answered.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn add(&mut self, line: Digested) -> io::Result<()> {
        self.answered.insert(line);
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_known_after_an_interruption_in_the_middle_of_a_word() {
        let directory = tempfile::tempdir().expect("a directory");
        let requests = directory.path().join("requests.jsonl");
        let mut journal = Journal::open(&requests).expect("a journal");
        for line in [1, 2, 3] {
            journal.add(Digested(line)).expect("it is written");
        }
        let path = Journal::path(&requests);
        let text = std::fs::read_to_string(&path).expect("a journal");
        std::fs::write(&path, &text[..text.len() - 5]).expect("it is cut");
        let mut journal = Journal::open(&requests).expect("a journal");
        assert!(journal.answered().contains(&Digested(2)) && !journal.answered().contains(&Digested(3)));
        journal.add(Digested(4)).expect("it is written");
        assert!(Journal::open(&requests).expect("a journal").answered().contains(&Digested(4)));

        Journal::remove(&requests).expect("it is removed");
        Journal::remove(&requests).expect("there is none");
        assert!(Journal::open(&requests).expect("a journal").answered().is_empty());
    }
}
