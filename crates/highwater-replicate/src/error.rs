//! The errors of replication.

use std::io;

use highwater::Lsn;

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a connection ended, or why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log of this side failed.
    #[error(transparent)]
    Log(#[from] highwater::Error),

    /// A call to the directory of the copy failed. Nothing that was reported is lost.
    #[error("{directory}: {operation} {name}")]
    Storage {
        /// The directory.
        directory: String,
        /// The call.
        operation: &'static str,
        /// The file.
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The connection failed or was closed by the other side. Connect again.
    #[error("the connection ended")]
    Connection(#[from] io::Error),

    /// The other side sent nothing for the configured time. Connect again.
    #[error("the other side sent nothing for the time limit; connect again")]
    Timeout,

    /// The other side sent bytes that the protocol does not allow.
    #[error("the other side broke the protocol: {reason}")]
    Protocol {
        /// The rule that was broken.
        reason: &'static str,
    },

    /// The other side is no node of this crate, has another version, or has the same role.
    #[error("the other side can't be used: {reason}")]
    Preamble {
        /// The reason.
        reason: &'static str,
    },

    /// The other side did not prove who it is.
    #[error("authentication failed: {reason}")]
    Authentication {
        /// The reason.
        reason: String,
    },

    /// The two logs have different ids. The copy belongs to another log.
    #[error("the copy belongs to another log; use an empty directory")]
    OtherLog,

    /// A replica has promised a higher term, or another line of the same term. This leader must not
    /// acknowledge records any more: stop it, and let it join as a replica.
    #[error("this leader is fenced: a replica has promised epoch {promised:#x}; stop this leader")]
    Fenced {
        /// The promised epoch.
        promised: u64,
    },

    /// The copy has durable bytes that the leader does not have. Nothing was cut.
    ///
    /// To cut them and keep a copy of the files, set `Options::on_divergence`.
    #[error(
        "the copy has records above LSN {common} that the leader does not have; its end is {end}; \
         set `on_divergence` to set them aside"
    )]
    Diverged {
        /// The end of the common part.
        common: Lsn,
        /// The end of the copy.
        end: Lsn,
    },

    /// The copy is longer than the leader's log, in the same segment: the leader lost durable data.
    /// Nothing was cut. Promote the copy, or restore the leader.
    #[error("the copy ends at LSN {end}, above the synced mark {synced} of the leader")]
    Ahead {
        /// The synced mark of the leader.
        synced: Lsn,
        /// The end of the copy.
        end: Lsn,
    },

    /// The leader has removed segments that the copy needs. Use an empty directory.
    #[error("the leader's log begins at LSN {first}, above the end of the copy; make a new copy")]
    TooFarBehind {
        /// The beginning of the leader's log.
        first: Lsn,
    },

    /// No segment of the copy is in the leader's log. Use an empty directory.
    #[error("the copy and the leader have no segment in common; make a new copy")]
    NoCommonPoint,

    /// The directory holds a log that is no standby. `Replica::demote` makes it one.
    #[error("{directory}: a log and no standby; demote it to let it follow a leader")]
    NotAStandby {
        /// The directory.
        directory: String,
    },

    /// The first copy of the log is not complete yet.
    #[error("the first copy is not complete: it ends at LSN {end} and needs LSN {goal}")]
    Seeding {
        /// The end of the copy.
        end: Lsn,
        /// The position that it must reach.
        goal: Lsn,
    },

    /// Durable bytes of the copy are damaged.
    #[error("{directory}: {name}, offset {offset}: {reason}")]
    Damaged {
        /// The directory.
        directory: String,
        /// The file.
        name: String,
        /// The offset in the file.
        offset: u64,
        /// The kind of damage.
        reason: String,
    },

    /// The epoch is not above the promised one, or belongs to another line.
    #[error("epoch {epoch:#x} can't be promised after {promised:#x}")]
    LowerEpoch {
        /// The epoch of the call.
        epoch: u64,
        /// The promised epoch.
        promised: u64,
    },

    /// The truncation of the leader's end removed the record.
    #[error("the log was truncated to LSN {to}, which removed the record")]
    Truncated {
        /// The new end of the log.
        to: Lsn,
    },

    /// The job of this call was dropped, because the runtime shuts down or the job panicked.
    #[error("the runtime dropped the work of this call")]
    RuntimeGone,

    /// A name of a replica is empty, or longer than 54 bytes.
    #[error("the name of a replica has 1 to 54 bytes")]
    Name,
}
