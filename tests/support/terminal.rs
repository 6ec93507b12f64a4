//! A terminal that a program writes to, and what a person would see there.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// So wide that no line of a log is broken.
const COLUMNS: usize = 1_000;

pub struct Terminal {
    written: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// A terminal, and the end of it that a program is to have.
    pub fn open() -> (Terminal, File) {
        let open = |path: &str| File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
        let mut ours = open("/dev/ptmx").expect("a terminal");
        let mut name: [libc::c_char; 64] = [0; 64];
        let size = libc::winsize {
            ws_row: 50,
            ws_col: COLUMNS as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: `name` and `size` live through the calls, and `name` is as long as is said.
        let is_made = unsafe {
            libc::unlockpt(ours.as_raw_fd()) == 0
                && libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr(), name.len()) == 0
                && libc::ioctl(ours.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) == 0
        };
        assert!(is_made, "no terminal: {}", io::Error::last_os_error());
        // SAFETY: the call above has succeeded, so there is a name with a zero behind it.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        let theirs = open(name.to_str().expect("a path in UTF-8")).expect("the other end");
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let reader = thread::spawn({
            let written = Arc::clone(&written);
            move || {
                let mut buffer = [0; 4096];
                // It is an error when nobody has the other end any more.
                while let Ok(read @ 1..) = ours.read(&mut buffer) {
                    written.lock().unwrap().extend_from_slice(&buffer[..read]);
                }
            }
        });
        (Terminal { written, reader }, theirs)
    }

    /// What is to be seen now.
    pub fn screen(&self) -> Screen {
        Screen::after(&self.written.lock().unwrap())
    }

    /// What is to be seen when the program has ended.
    pub fn end(self) -> Screen {
        self.reader.join().expect("the terminal is read to its end");
        Screen::after(&self.written.lock().unwrap())
    }
}

/// What stands on a terminal that is high enough for all of it.
#[derive(Debug)]
pub struct Screen {
    pub lines: Vec<String>,
    /// What was erased, with the place where its line was.
    pub erased: Vec<(usize, String)>,
}

impl Screen {
    /// What these bytes make of it. The last of them may be half of something.
    fn after(written: &[u8]) -> Screen {
        let text = String::from_utf8_lossy(written);
        let (mut lines, mut erased) = (Vec::<Vec<char>>::new(), Vec::new());
        let (mut row, mut column) = (0_usize, 0);
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            if lines.len() <= row {
                lines.resize(row + 1, Vec::new());
            }
            match next {
                '\r' => column = 0,
                '\n' => row += 1,
                '\x1b' => {
                    let kind = rest.next();
                    let mut parameter = String::new();
                    let last = rest.by_ref().find(|letter| {
                        let is_last = letter.is_ascii_alphabetic();
                        if !is_last {
                            parameter.push(*letter);
                        }
                        is_last
                    });
                    let count = parameter.parse().unwrap_or(1);
                    match (kind, parameter.as_str(), last) {
                        (_, _, None) => break,
                        (Some('['), _, Some('A')) => row = row.saturating_sub(count),
                        (Some('['), _, Some('B')) => row += count,
                        (Some('['), "2", Some('K')) => erased.push((row, line(&mem::take(&mut lines[row])))),
                        unknown => panic!("this terminal does not know {unknown:?}"),
                    }
                }
                letter => {
                    // What does not fit goes on in the next line.
                    if column == COLUMNS {
                        (row, column) = (row + 1, 0);
                        lines.resize(lines.len().max(row + 1), Vec::new());
                    }
                    let letters = &mut lines[row];
                    letters.resize(letters.len().max(column + 1), ' ');
                    letters[column] = letter;
                    column += 1;
                }
            }
        }
        let lines = lines.iter().map(|letters| line(letters)).collect();
        Screen { lines, erased }
    }
}

fn line(letters: &[char]) -> String {
    letters.iter().collect::<String>().trim_end().to_owned()
}
