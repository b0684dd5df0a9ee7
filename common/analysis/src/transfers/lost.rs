//! Why files are not followed any more.

use super::{
    HELD_BYTES_MAX,
    scp::{FOLDERS_MAX, UNANSWERED_MAX},
    sftp::{FILES_MAX, HANDLE_BYTES_MAX, PENDING_MAX},
};

/// Why a channel is not followed to its end. Where that is so, the findings say it once, in these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error("something is missing from the recording here")]
    Gap,
    #[error("the bytes are not of the protocol")]
    Malformed,
    #[error("content is withheld where the protocol has none, or not as a whole")]
    Withheld,
    #[error("an answer to nothing that was asked")]
    Unasked,
    #[error("something was done to a file that is not known to be open")]
    NotOpen,
    #[error("more than {FILES_MAX} files open at once")]
    Files,
    #[error("a file handle of more than {HANDLE_BYTES_MAX} bytes")]
    Handle,
    #[error("more than {PENDING_MAX} requests under way at once")]
    Pending,
    #[error("paths of more than {HELD_BYTES_MAX} bytes under way at once")]
    Held,
    #[error("more than {FOLDERS_MAX} folders within each other")]
    Folders,
    #[error("more than {UNANSWERED_MAX} lines and files without an answer")]
    Unanswered,
}
