//! The names of the scenarios.

/// What kind of trouble a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// None.
    Healthy,
    /// 1 to 16 validators with any powers.
    Sizes,
    /// Every host has few links: what is sent must be sent on.
    Sparse,
    /// Messages get lost, twice and late.
    Lossy,
    /// Groups of hosts lose their connections to each other.
    Partitions,
    /// Groups of hosts do not hear each other, and no connection ends.
    SilentPartitions,
    /// Processes end at any action, with a torn log.
    Crashes,
    /// The same, and now and then all end at once.
    CrashAll,
    /// One validator loses its log in a crash, but not its mark.
    LostLog,
    /// One validator's whole disk, mark and all, is put back to an old copy by its crashes.
    RestoredDisk,
    /// Syncing takes up to a second.
    SlowDisk,
    /// Judging a block takes up to three seconds.
    SlowValidation,
    /// Clocks are wrong by up to eight seconds.
    Skew,
    /// One clock is wrong by much, and may jump.
    WrongClock,
    /// Hosts that start when the others are far ahead.
    LateJoiners,
    /// The same, and some of those they ask lie.
    LateJoinersAmongLiars,
    /// A host that fetches thousands of blocks from its only peer, as fast as they come.
    FastSync,
    /// Another validator set every few heights.
    ChangingSets,
    /// A validator tells each peer something else.
    Equivocation,
    /// Bodies without proposals, and altered ones.
    BodyFlood,
    /// Bodies, proposals and votes that do not come.
    Withholding,
    /// Proposed blocks that break rules.
    InvalidBlocks,
    /// Proposals out of turn.
    WrongProposer,
    /// Messages of other rounds and heights, and old ones again.
    StaleRounds,
    /// Two validators push the time of blocks ahead.
    FutureBlocks,
    /// Wrong answers to whoever asks.
    LyingSync,
    /// Bytes that mean nothing.
    Spam,
    /// Strangers fill the room for bodies without a proposal.
    JunkBodies,
    /// Strangers announce every block as soon as it is proposed, and do not send it.
    FalseAnnouncements,
    /// Long transactions, and lines that carry a few of them a second.
    ThinLines,
    /// Strangers claim to have everything, and answer nothing, while a host has to catch up.
    StalledSync,
    /// Strangers claim to have everything, and answer with old blocks.
    Decoys,
    /// Strangers put certificates together from what validators signed.
    Certificates,
    /// Strangers add invalid transactions to valid ones, where links are few.
    Riders,
    /// Deposits and requests, and nothing goes wrong.
    Peg,
    /// The Bitcoin nodes hear of blocks late, each in its own time.
    LateHeaders,
    /// Bitcoin nodes end, stop hearing of blocks, and come back.
    DeadBitcoin,
    /// A third of the validators have no Bitcoin node, for good.
    BlindThird,
    /// Bitcoin reorganises, less deep than what counts as final.
    BitcoinReorg,
    /// Validators that leave out whatever the peg waits for.
    CensoringProposers,
    /// Validators that propose headers which Bitcoin does not have.
    FalseEvidence,
    /// Loss, crashes, slowness, wrong clocks, partitions changing sets and troubles of Bitcoin at once.
    Storm,
    /// The same among liars of every kind.
    Chaos,
}

/// Every scenario.
pub const SCENARIOS: [Scenario; 43] = [
    Scenario::Healthy,
    Scenario::Sizes,
    Scenario::Sparse,
    Scenario::Lossy,
    Scenario::Partitions,
    Scenario::SilentPartitions,
    Scenario::Crashes,
    Scenario::CrashAll,
    Scenario::LostLog,
    Scenario::RestoredDisk,
    Scenario::SlowDisk,
    Scenario::SlowValidation,
    Scenario::Skew,
    Scenario::WrongClock,
    Scenario::LateJoiners,
    Scenario::LateJoinersAmongLiars,
    Scenario::FastSync,
    Scenario::ChangingSets,
    Scenario::Equivocation,
    Scenario::BodyFlood,
    Scenario::Withholding,
    Scenario::InvalidBlocks,
    Scenario::WrongProposer,
    Scenario::StaleRounds,
    Scenario::FutureBlocks,
    Scenario::LyingSync,
    Scenario::Spam,
    Scenario::JunkBodies,
    Scenario::FalseAnnouncements,
    Scenario::ThinLines,
    Scenario::StalledSync,
    Scenario::Decoys,
    Scenario::Certificates,
    Scenario::Riders,
    Scenario::Peg,
    Scenario::LateHeaders,
    Scenario::DeadBitcoin,
    Scenario::BlindThird,
    Scenario::BitcoinReorg,
    Scenario::CensoringProposers,
    Scenario::FalseEvidence,
    Scenario::Storm,
    Scenario::Chaos,
];

impl Scenario {
    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Sizes => "sizes",
            Self::Sparse => "sparse",
            Self::Lossy => "lossy",
            Self::Partitions => "partitions",
            Self::SilentPartitions => "silent-partitions",
            Self::Crashes => "crashes",
            Self::CrashAll => "crash-all",
            Self::LostLog => "lost-log",
            Self::RestoredDisk => "restored-disk",
            Self::SlowDisk => "slow-disk",
            Self::SlowValidation => "slow-validation",
            Self::Skew => "skew",
            Self::WrongClock => "wrong-clock",
            Self::LateJoiners => "late-joiners",
            Self::LateJoinersAmongLiars => "late-joiners-liars",
            Self::FastSync => "fast-sync",
            Self::ChangingSets => "changing-sets",
            Self::Equivocation => "equivocation",
            Self::BodyFlood => "body-flood",
            Self::Withholding => "withholding",
            Self::InvalidBlocks => "invalid-blocks",
            Self::WrongProposer => "wrong-proposer",
            Self::StaleRounds => "stale-rounds",
            Self::FutureBlocks => "future-blocks",
            Self::LyingSync => "lying-sync",
            Self::Spam => "spam",
            Self::JunkBodies => "junk-bodies",
            Self::FalseAnnouncements => "false-announcements",
            Self::ThinLines => "thin-lines",
            Self::StalledSync => "stalled-sync",
            Self::Decoys => "decoys",
            Self::Certificates => "certificates",
            Self::Riders => "riders",
            Self::Peg => "peg",
            Self::LateHeaders => "late-headers",
            Self::DeadBitcoin => "dead-bitcoin",
            Self::BlindThird => "blind-third",
            Self::BitcoinReorg => "bitcoin-reorg",
            Self::CensoringProposers => "censoring-proposers",
            Self::FalseEvidence => "false-evidence",
            Self::Storm => "storm",
            Self::Chaos => "chaos",
        }
    }

    /// The scenario of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        SCENARIOS.iter().copied().find(|scenario| scenario.name() == name)
    }
}
