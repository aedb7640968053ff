//! Archives in the ustar format (POSIX.1-1988, pax(1)), which every `tar` reads. Pure.

/// Size of a block: headers and contents are padded to it.
const BLOCK_LEN: usize = 512;
/// Longest name of a folder, and of a file in it, bytes.
const MAX_FOLDER_LEN: usize = 155;
const MAX_NAME_LEN: usize = 100;

/// An archive of one folder under construction.
pub(super) struct ArchiveWriter {
    folder: String,
    /// Time of its files, seconds since 1970.
    written_at: u64,
    bytes: Vec<u8>,
}

impl ArchiveWriter {
    /// An empty archive of `folder`.
    pub(super) fn new(folder: String, written_at: u64) -> Self {
        debug_assert!(folder.len() <= MAX_FOLDER_LEN);
        Self { folder, written_at, bytes: Vec::new() }
    }

    /// Adds a file that only its owner may read.
    pub(super) fn add_file(&mut self, name: &str, content: &[u8]) {
        debug_assert!(name.len() <= MAX_NAME_LEN);
        let mut header = [0; BLOCK_LEN];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, "0000600");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, &format!("{:011o}", self.written_at));
        // The sum is made with blanks in its own place.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\0");
        put(263, "00");
        put(345, &self.folder);
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_LEN), 0);
    }

    /// The archive, with the two empty blocks that end it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK_LEN, 0);
        self.bytes
    }
}
