//! View: what is looked at on the screen, as keys change it. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::board::{Board, By, Sort};

/// The longest filter, in characters.
const LONGEST_FILTER: usize = 40;

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) by: By,
    pub(super) sort: Sort,
    /// What names must contain.
    pub(super) filter: String,
    /// Whether keys are letters of the filter.
    pub(super) is_typing: bool,
    /// Whether the keys are explained.
    pub(super) shows_help: bool,
    /// How it was when it was held; meanwhile it goes on unseen.
    pub(super) held: Option<Box<Board>>,
}

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It goes on.
    Go,
    /// It ends.
    Quit,
}

impl View {
    /// A key was pressed, while `board` was how things were.
    pub(super) fn press(&mut self, key: KeyEvent, board: &Board) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::Go;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Then::Quit } else { Then::Go };
        }
        if self.is_typing {
            self.type_key(key.code);
            return Then::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('p' | ' ') => {
                self.held = if self.held.is_some() { None } else { Some(Box::new(board.clone())) }
            }
            KeyCode::Char('s') => self.sort = next(&Sort::ALL, self.sort),
            KeyCode::Tab => self.by = next(&By::ALL, self.by),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Esc => (self.shows_help, self.filter) = (false, String::new()),
            _ => {}
        }
        Then::Go
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => (self.is_typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.chars().count() < LONGEST_FILTER => self.filter.push(letter),
            _ => {}
        }
    }
}

/// The one that follows in the round.
fn next<T: Copy + PartialEq>(all: &[T], current: T) -> T {
    let place = all.iter().position(|one| *one == current).unwrap_or_default();
    all[(place + 1) % all.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, keys: &str) -> Then {
        let code = |letter| match letter {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        let board = Board::default();
        let keys = keys.chars().map(|letter| KeyEvent::from(code(letter)));
        keys.fold(Then::Go, |_, key| view.press(key, &board))
    }

    #[test]
    fn keys_go_round_and_quit() {
        let mut view = View::default();
        assert_eq!(press(&mut view, "\t\ts"), Then::Go);
        assert_eq!((view.by, view.sort), (By::User, Sort::Calls));
        press(&mut view, "\tssss");
        assert_eq!((view.by, view.sort), (By::Model, Sort::Cost), "round");
        press(&mut view, "?p");
        assert!(view.shows_help && view.held.is_some());
        press(&mut view, "\u{1b} ");
        assert!(!view.shows_help && view.held.is_none());
        assert_eq!(press(&mut view, "q"), Then::Quit);
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.press(key, &Board::default()), Then::Quit);
        let mut key = KeyEvent::from(KeyCode::Char('q'));
        key.kind = KeyEventKind::Release;
        assert_eq!(view.press(key, &Board::default()), Then::Go, "it was pressed before");
    }

    #[test]
    fn a_filter_takes_letters_that_are_keys_elsewhere() {
        let mut view = View::default();
        assert_eq!(press(&mut view, "/gqx\u{8}\n"), Then::Go);
        assert_eq!((&*view.filter, view.is_typing), ("gq", false));
        press(&mut view, &format!("/{}", "x".repeat(100)));
        assert_eq!(view.filter.chars().count(), LONGEST_FILTER);
        press(&mut view, "\u{1b}");
        assert_eq!((&*view.filter, view.is_typing), ("", false));
    }
}
