//! Screen: the terminal, taken and given back; keys and news, as they come.
//!
//! However it ends (a key, a signal, an error, a panic), the terminal is as it was before.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use super::board::Board;
use super::draw::{Look, draw};
use super::news::News;
use super::view::{Then, View};
use crate::cli::wording::wants_colours;

/// How long to wait for a key before looking for news: ten pictures a second at most.
const PICTURE_EVERY: Duration = Duration::from_millis(100);

/// Shows what `news` brings of the weir at `source`, until there is no more, or the user has seen enough.
///
/// # Errors
/// If there is no terminal that can be drawn on.
pub(super) fn show(source: &str, news: &Receiver<News>) -> io::Result<()> {
    // From here on a panic restores the terminal, too.
    let terminal = ratatui::try_init();
    let shown = terminal.and_then(|mut terminal| run(&mut terminal, source, news));
    let restored = ratatui::try_restore();
    shown.and(restored)
}

fn run(terminal: &mut DefaultTerminal, source: &str, news: &Receiver<News>) -> io::Result<()> {
    let (mut board, mut view) = (Board::default(), View::default());
    let look = Look { has_colours: wants_colours() };
    loop {
        terminal.draw(|frame| draw(frame, &board, &view, source, look))?;
        let mut has_key = event::poll(PICTURE_EVERY)?;
        while has_key {
            if let Event::Key(key) = event::read()?
                && view.press(key, &board) == Then::Quit
            {
                return Ok(());
            }
            has_key = event::poll(Duration::ZERO)?;
        }
        loop {
            match news.try_recv() {
                Ok(news) => board.take(news),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}
