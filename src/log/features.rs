//! What a table may ask of its readers and writers: Delta's features by name, and which of them alluvium fulfils.

pub(super) const DELETION_VECTORS: &str = "deletionVectors";
/// Timestamps without a zone.
pub(super) const TIMESTAMP_NTZ: &str = "timestampNtz";
/// Columns that became wider.
pub(super) const TYPE_WIDENING: &str = "typeWidening";
/// Checkpoints that may lie in several files, which the first one names.
pub(super) const V2_CHECKPOINT: &str = "v2Checkpoint";
/// Asks something only of those who vacuum.
pub(super) const VACUUM_PROTOCOL_CHECK: &str = "vacuumProtocolCheck";
pub(super) const CHANGE_DATA_FEED: &str = "changeDataFeed";

/// Properties that make use of them.
pub(super) const ENABLE_DELETION_VECTORS: &str = "delta.enableDeletionVectors";
pub(super) const ENABLE_TYPE_WIDENING: &str = "delta.enableTypeWidening";
pub(super) const ENABLE_CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";

/// What replay and DataFusion's scans understand. That of variants asks for nothing where no column is one, and a column that is one is
/// refused by its type: the Delta library lists it whenever it sets a property.
pub(super) const READ: [&str; 8] = [
    "columnMapping",
    DELETION_VECTORS,
    TIMESTAMP_NTZ,
    TYPE_WIDENING,
    V2_CHECKPOINT,
    VACUUM_PROTOCOL_CHECK,
    "variantType",
    "variantType-preview",
];

/// What alluvium fulfils when it writes. Those from the change data feed on ask for nothing unless a property or a column uses them, and that
/// is looked for by itself.
pub(super) const WRITTEN: [&str; 14] = [
    "appendOnly",
    DELETION_VECTORS,
    TIMESTAMP_NTZ,
    TYPE_WIDENING,
    V2_CHECKPOINT,
    VACUUM_PROTOCOL_CHECK,
    CHANGE_DATA_FEED,
    "checkConstraints",
    "columnMapping",
    "generatedColumns",
    "identityColumns",
    "invariants",
    "variantType",
    "variantType-preview",
];
