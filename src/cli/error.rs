//! What a failed command tells its reader, and the exit code that tells scripts.

use std::fmt;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The operation failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// Something needed could not be reached.
    Unreachable,
    /// A code of the command's own.
    Of(u8),
}

impl Exit {
    /// The code that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Of(code) => code,
        }
    }
}

/// A command that did not do what it was asked.
///
/// `message` says what was tried, on what, and what went wrong; `next` what flowkeeper does now, where
/// that is not plain; `hint` what the reader can do.
#[derive(Debug)]
pub struct CommandError {
    exit: Exit,
    silent: bool,
    message: String,
    next: Option<String>,
    hint: Option<String>,
}

impl CommandError {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, silent: false, message: message.into(), next: None, hint: None }
    }

    /// The operation was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line or the configuration asks for something impossible.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something needed did not answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    /// Whoever read our standard output has seen enough: not a failure, and nothing to say.
    pub fn reader_gone() -> Self {
        Self { silent: true, ..Self::new(Exit::Done, "the reader of the output went away") }
    }

    /// Faults were found, and have been printed already.
    pub fn shown(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "there are faults") }
    }

    /// Whether nothing is printed about it.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// What flowkeeper does now.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// What the reader can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(next) = &self.next {
            write!(f, "\n  {next}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CommandError {}
