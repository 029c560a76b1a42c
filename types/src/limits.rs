//! Every bound of the system in one place, tied together by const assertions.
//! Sizes in bytes, times in milliseconds unless the name says otherwise.

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;
pub const GIB: u64 = 1024 * MIB;

// Names.
pub const MIN_BUCKET_NAME_BYTES: usize = 3;
pub const MAX_BUCKET_NAME_BYTES: usize = 63;
pub const MAX_KEY_BYTES: usize = 1024;
pub const MAX_NODE_ID_BYTES: usize = 63;
pub const MAX_DOMAIN_BYTES: usize = 255;
/// Of a segment file. With less each chunk would be a file of its own; the room that is kept free for writing one again
/// grows with it.
pub const MIN_SEGMENT_BYTES: u64 = 4 * MIB;
pub const MAX_SEGMENT_BYTES: u64 = 64 * GIB;
pub const MAX_ADDRESS_BYTES: usize = 255;
pub const MAX_PRINCIPAL_NAME_BYTES: usize = 63;
pub const MAX_USER_METADATA_BYTES: usize = 8 * 1024;
pub const MAX_CONTENT_TYPE_BYTES: usize = 255;

// Chunks (sealing.md).
pub const FRAME_BYTES: usize = 64 * 1024;
pub const MAX_CHUNK_BYTES: u64 = 64 * MIB;
pub const TAG_BYTES: usize = 16;
pub const CHUNK_TRAILER_BYTES: usize = 64;
pub const MAX_SEALED_BYTES: u64 =
    MAX_CHUNK_BYTES + (MAX_CHUNK_BYTES / FRAME_BYTES as u64) * TAG_BYTES as u64 + CHUNK_TRAILER_BYTES as u64;
/// Content up to this size travels and lives inline, in the metadata service.
pub const MAX_INLINE_BYTES: usize = 16 * 1024;

// Versions.
pub const MAX_PAGE_CHUNKS: usize = 1024;
pub const MAX_VERSION_BYTES: u64 = 64 * 1024 * GIB;
pub const MAX_PAGES_PER_VERSION: u32 = 4096;
/// A sealed root: user metadata, content type and hashes, with room for what comes next.
pub const MAX_SEALED_ROOT_BYTES: usize = 16 * 1024;
/// A wrapped key (66 bytes today) or a node's wrapped secret.
pub const MAX_WRAPPED_BYTES: usize = 256;
/// A bucket may keep old versions for at most 100 years.
pub const MAX_KEEP_MS: u64 = 100 * 366 * 24 * 3600 * 1000;
/// Copies a policy may want.
pub const MAX_TARGET: u32 = 16;

// Cluster.
/// Every place that looks at all nodes is bounded by this.
pub const MAX_NODES: usize = 4096;

// One round of planning: chunks a client may plan, or read, in one call.
pub const MAX_PLAN_CHUNKS: usize = 64;
pub const MAX_RECEIPTS_PER_CHUNK: usize = 16;
pub const MAX_LOCATIONS_PER_CHUNK: usize = 16;

// Raft entries.
pub const MAX_ENTRY_BYTES: usize = 512 * 1024;
pub const MAX_COMMAND_BYTES: usize = 256 * 1024;
pub const MAX_COMMANDS_PER_ENTRY: usize = 4096;
pub const MAX_ENTRIES_IN_FLIGHT: usize = 4;
/// Commands that may wait for the log writer; one more is answered `overloaded`.
pub const MAX_WAITING_COMMANDS: usize = 8192;
/// And their bytes together, so that large commands cannot fill the memory.
pub const MAX_WAITING_BYTES: u64 = 32 * MIB;
/// Positions' worth of request results kept for at-most-once.
pub const REQUEST_WINDOW: u64 = 1 << 20;
/// Room on a metadata server's disk that new data may not use, unless it is set; of a small disk this many
/// hundredths.
pub const DEFAULT_RESERVE_BYTES: u64 = GIB;
pub const DEFAULT_RESERVE_PERCENT: u64 = 2;
/// Its ballast file, unless it is set; of a small disk at most one part in so many.
pub const DEFAULT_BALLAST_BYTES: u64 = 64 * MIB;
pub const MAX_BALLAST_DISK_SHARE: u64 = 16;
/// Most that may be set for it.
pub const MAX_BALLAST_BYTES: u64 = 16 * GIB;
/// With less free than this the ballast goes: room for both databases' write buffers and a new log file.
pub const CRITICAL_FREE_BYTES: u64 = 32 * MIB;
/// With less than this, and no ballast left, no entry is taken: room for votes and what is under way.
pub const FULL_FREE_BYTES: u64 = 8 * MIB;
/// How often a metadata server looks at its disk, and the leader asks the others for theirs.
pub const DISK_LOOK_MS: u64 = 1_000;
/// How long a silent voter's last word on its disk counts.
pub const DISK_REPORT_LIFETIME_MS: u64 = 30_000;

// Lists.
pub const MAX_LIST_ENTRIES: u32 = 1000;
pub const MAX_LIST_ROWS_EXAMINED: u32 = 10_000;
pub const MAX_CURSOR_BYTES: usize = 2 * MAX_KEY_BYTES + 64;

// Background work proposed in one command.
pub const MAX_CHUNKS_PER_BACKGROUND_COMMAND: usize = 256;

// gRPC.
pub const MAX_GRPC_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
pub const DATA_MESSAGE_BYTES: usize = 256 * 1024;
pub const MAX_STREAMS_PER_CONNECTION: u32 = 64;
pub const MAX_HTTP_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Path and query of a REST call: a key, a cursor and a delimiter, each percent-encoded, have room.
pub const MAX_URI_BYTES: usize = 16 * 1024;

// Connections (transport). Windows are sized so that one stream fills a fast link; frames so that
// few of them carry a data message.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 * MIB as u32;
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 * MIB as u32;
pub const HTTP2_MAX_FRAME_BYTES: u32 = 256 * KIB as u32;
pub const MAX_HEADER_LIST_BYTES: u32 = 32 * KIB as u32;
/// Chunks under target that one cluster status counts by copies.
pub const MAX_DEFICITS_LOOKED_AT: usize = 1000;
/// Multipart uploads that one object store keeps open by id.
pub const MAX_OPEN_MULTIPARTS: usize = 4096;
/// Watches of gRPC health that one server keeps, as they need no credential.
pub const MAX_HEALTH_WATCHES: usize = 256;
pub const MAX_CONNECTIONS: usize = 4096;
/// Of [`MAX_CONNECTIONS`], these are kept for servers of the cluster.
pub const CONNECTIONS_FOR_SERVERS: usize = 256;
pub const MAX_POOLED_CHANNELS: usize = 1024;
pub const HANDSHAKE_DEADLINE_MS: u64 = 5_000;
pub const HEADER_READ_DEADLINE_MS: u64 = 10_000;
pub const FIRST_REQUEST_DEADLINE_MS: u64 = 60_000;
pub const CONNECT_DEADLINE_MS: u64 = 5_000;
pub const CONNECT_ATTEMPT_DEADLINE_MS: u64 = 2_000;
/// A connection on which nothing came for so long is asked (HTTP/2 PING). Together with the time given for the answer
/// it is well below a call's deadline, so that whoever waits for a peer that fell silent can still ask another.
pub const KEEPALIVE_INTERVAL_MS: u64 = 2_000;
pub const KEEPALIVE_TIMEOUT_MS: u64 = 5_000;
pub const DRAIN_DEADLINE_MS: u64 = 10_000;

// Times (ms), the defaults of settings.
pub const RAFT_HEARTBEAT_MS: u64 = 200;
pub const ELECTION_MIN_MS: u64 = 1_000;
pub const ELECTION_MAX_MS: u64 = 2_000;
/// Longest a leader that leaves tries to hand the lead over before it stops all the same.
pub const HAND_OFF_MS: u64 = 3_000;
pub const NODE_HEARTBEAT_MS: u64 = 1_000;
pub const NODE_SUSPECT_MS: u64 = 5_000;
pub const NODE_DOWN_MS: u64 = 15_000;
pub const REPAIR_DELAY_MS: u64 = 30_000;
/// Between two looks at all that a chunk server has.
pub const INVENTORY_INTERVAL_MS: u64 = 3_600 * 1000;
/// What copies of the cluster's own may move to and from one chunk server.
pub const REPAIR_BYTES_PER_SECOND: u64 = 64 * MIB;
pub const TICK_MS: u64 = 1_000;
/// One tick never advances cluster time by more than this.
pub const MAX_TICK_MS: u64 = 5_000;
pub const GRANT_LIFETIME_MS: u64 = 60_000;
/// Reservations of room on nodes that a leader remembers the upload or task of, so that they end with it;
/// the others last a grant's lifetime.
pub const MAX_NOTED_RESERVATIONS: usize = 65_536;
/// Trash keeps an unreferenced chunk at least two grant lifetimes.
pub const TRASH_PERIOD_MS: u64 = 2 * GRANT_LIFETIME_MS;
pub const EPOCH_FLOOR_LAG_MS: u64 = 24 * 3600 * 1000;
pub const UPLOAD_EXPIRY_MS: u64 = 24 * 3600 * 1000;
pub const DEFAULT_KEEP_MS: u64 = 24 * 3600 * 1000;
/// Longest a call without a deadline of its own may take.
pub const DEFAULT_DEADLINE_MS: u64 = 10_000;

// Chunk servers.
/// Bytes of chunks that may be on their way through one chunk server's memory in puts and copies.
pub const MAX_INGEST_BYTES_IN_FLIGHT: u64 = 256 * MIB;
/// What one put or copy may hold of them: two batches and the forward queue.
pub const MAX_INGEST_BYTES_PER_STREAM: u64 = 8 * MIB;
/// Received slices are hashed and written in batches of this size.
pub const INGEST_BATCH_BYTES: usize = MIB as usize;
/// Messages of a put that may wait for the next node.
pub const FORWARD_QUEUE_MESSAGES: usize = 16;
/// Nodes that one put may name behind the node called.
pub const MAX_FORWARD_NODES: usize = MAX_RECEIPTS_PER_CHUNK - 1;
/// A stream on which nothing moves for this long is ended.
pub const STREAM_IDLE_MS: u64 = 10_000;
/// How long one node may hold up the node before it, for each node from there to the end of the list.
pub const FORWARD_STALL_MS: u64 = 4_000;
/// A whole stream may take this long, and another second for each MIN_STREAM_BYTES_PER_SEC.
pub const STREAM_BASE_MS: u64 = 30_000;
pub const MIN_STREAM_BYTES_PER_SEC: u64 = MIB;
/// Reads that one chunk server serves at once.
pub const MAX_GET_STREAMS: usize = 256;
/// Copies of repair that one chunk server pulls at once.
pub const MAX_COPIES: usize = 8;
/// While it serves users: fewer.
pub const COPIES_BESIDE_USERS: usize = 2;
/// Store calls that one chunk server runs at once; more wait.
pub const MAX_BLOCKING_CALLS: usize = 64;
pub const MAX_WAITING_BLOCKING_CALLS: usize = 4_096;
/// PUT grants whose use a chunk server counts at once.
pub const MAX_COUNTED_GRANTS: usize = 65_536;
pub const MAX_FAULTS_PER_HEARTBEAT: usize = 256;
/// Ways of putting the groups of damaged copies together that are tried when no list of group values is good.
pub const MAX_MERGE_TRIES: usize = 4096;
pub const MAX_FAULTS_WAITING: usize = 16_384;
pub const MAX_INVENTORY_ENTRIES: u32 = 4_096;
pub const HEARTBEAT_DEADLINE_MS: u64 = 3_000;

/// Spans of traces that wait to be sent to a collector; more are dropped.
pub const TRACE_QUEUE_SPANS: usize = 4_096;
pub const TRACE_BATCH_SPANS: usize = 512;
/// Of a file of certificates for a collector; a system's own bundle has some 250 KB.
pub const TRACE_PEM_BYTES: u64 = 4 << 20;
/// How long a collector may take for a call, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
pub const TRACE_TIMEOUT_MS: u64 = 10_000;
/// How long a collector may take for connection and TLS handshake.
pub const TRACE_HANDSHAKE_MS: u64 = 5_000;
/// The longest part of a request's path that names its span.
pub const MAX_SPAN_NAME_BYTES: usize = 96;

// Chunk lengths by offset inside a version.
pub const CHUNK_BYTES_FIRST: u64 = 4 * MIB;
pub const CHUNK_BYTES_SECOND: u64 = 16 * MIB;
pub const CHUNK_BYTES_THIRD: u64 = 64 * MIB;

/// The chunk length a writer uses at `offset` of a file: 4 MiB for the first GiB, 16 MiB up to
/// 64 GiB, then 64 MiB, so that the count of chunks grows more slowly than the file.
pub const fn chunk_bytes_at(offset: u64) -> u64 {
    if offset < GIB {
        CHUNK_BYTES_FIRST
    } else if offset < 64 * GIB {
        CHUNK_BYTES_SECOND
    } else {
        CHUNK_BYTES_THIRD
    }
}

const _: () = assert!(CHUNK_BYTES_THIRD <= MAX_CHUNK_BYTES);
const _: () = assert!(MAX_COMMAND_BYTES * 2 <= MAX_ENTRY_BYTES);
const _: () = assert!(MAX_ENTRY_BYTES * 4 <= MAX_GRPC_MESSAGE_BYTES);
const _: () = assert!(MAX_COMMANDS_PER_ENTRY <= 1 << 16);
const _: () = assert!(
    2 * INGEST_BATCH_BYTES as u64 + (FORWARD_QUEUE_MESSAGES * DATA_MESSAGE_BYTES) as u64
        <= MAX_INGEST_BYTES_PER_STREAM
);
const _: () = assert!(MAX_INVENTORY_ENTRIES as usize * 128 <= MAX_GRPC_MESSAGE_BYTES);
const _: () = assert!(COPIES_BESIDE_USERS > 0 && COPIES_BESIDE_USERS <= MAX_COPIES);
const _: () = assert!(TRASH_PERIOD_MS >= 2 * GRANT_LIFETIME_MS);
const _: () = assert!(NODE_SUSPECT_MS < NODE_DOWN_MS);
const _: () = assert!(RAFT_HEARTBEAT_MS * 3 < ELECTION_MIN_MS);
// A page's clear list, secrets and locations fit one command.
const _: () = assert!(MAX_PAGE_CHUNKS * (32 + 4 + 32) + 64 * 1024 <= MAX_COMMAND_BYTES);
const _: () = assert!(CONNECTIONS_FOR_SERVERS < MAX_CONNECTIONS);
const _: () = assert!(CONNECT_ATTEMPT_DEADLINE_MS <= CONNECT_DEADLINE_MS);
const _: () = assert!(KEEPALIVE_INTERVAL_MS + KEEPALIVE_TIMEOUT_MS + 3_000 <= DEFAULT_DEADLINE_MS);
// The marks of a disk lie below each other; what is under way when one is passed fits above the next.
const _: () =
    assert!(FULL_FREE_BYTES * 2 <= CRITICAL_FREE_BYTES && CRITICAL_FREE_BYTES * 4 <= DEFAULT_RESERVE_BYTES);
const _: () = assert!(DEFAULT_BALLAST_BYTES <= MAX_BALLAST_BYTES);
const _: () = assert!(MAX_ENTRY_BYTES * MAX_ENTRIES_IN_FLIGHT * 2 <= FULL_FREE_BYTES as usize);
const _: () = assert!(DISK_LOOK_MS * 4 <= DISK_REPORT_LIFETIME_MS);
