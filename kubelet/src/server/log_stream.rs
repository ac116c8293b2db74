//! Reads a container's log file, from its end or beginning, and goes on as it grows, also across rotation.
//!
//! Never here: HTTP; which file.

use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kubelet_core::container_log::{LogOptions, render};
use tokio::sync::mpsc;

const CHUNK_BYTES: usize = 32 * 1024;
const LINE_BYTES_MAX: u64 = 1 << 20;

/// An open log.
pub struct LogFile {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
}

impl LogFile {
    /// Opens a log at its beginning, or before its last `tail` lines.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: PathBuf, tail: Option<usize>) -> io::Result<Self> {
        let mut file = File::open(&path)?;
        if let Some(lines) = tail {
            let start = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let inode = file.metadata()?.ino();
        Ok(Self { path, reader: BufReader::new(file), inode })
    }

    /// Changes to the new file if the log was rotated. To be called at the end of the old one.
    fn rotated(&mut self) -> io::Result<bool> {
        let replaced = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.ino() != self.inode,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if replaced {
            *self = Self::open(self.path.clone(), None)?;
        }
        Ok(replaced)
    }
}

/// Where the last `lines` lines begin.
fn tail_offset(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut found = 0;
    let mut end = length;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let size = end.min(block.len() as u64);
        let start = end - size;
        file.seek(SeekFrom::Start(start))?;
        let block = &mut block[..usize::try_from(size).unwrap_or(0)];
        file.read_exact(block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = start + index as u64;
            // The line feed at the very end closes the last line.
            if *byte == b'\n' && position + 1 != length {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// Sends the log in chunks until its end, or with `follow` until `ended` says that the container has ended and all is
/// sent, or the reader goes away.
pub async fn copy<F, Fut>(
    mut file: LogFile,
    options: LogOptions,
    ended: F,
    poll: Duration,
    sender: mpsc::Sender<io::Result<Bytes>>,
) where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let mut out = Vec::new();
    let mut line = Vec::new();
    let mut at_line_start = true;
    let mut left = options.limit_bytes;
    let mut last_round = false;
    loop {
        let read = (&mut file.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        match read {
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
            Ok(_) if line.ends_with(b"\n") => {
                if let Some(complete) = render(&line, &options, at_line_start, &mut out) {
                    at_line_start = complete;
                }
                line.clear();
            }
            // Not a record: no end within the limit.
            Ok(_) if line.len() as u64 >= LINE_BYTES_MAX => line.clear(),
            // The end for now; half a line stays for the next round.
            Ok(_) => {
                if !send(&mut out, &mut left, &sender).await {
                    return;
                }
                match file.rotated() {
                    Ok(true) => {
                        line.clear();
                        continue;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                }
                if !options.follow || last_round {
                    return;
                }
                last_round = ended().await;
                if !last_round {
                    tokio::select! {
                        () = tokio::time::sleep(poll) => {}
                        () = sender.closed() => return,
                    }
                }
                continue;
            }
        }
        if out.len() >= CHUNK_BYTES && !send(&mut out, &mut left, &sender).await {
            return;
        }
    }
}

/// Sends what there is. False when there is no more to send or nobody to send to.
async fn send(out: &mut Vec<u8>, left: &mut Option<usize>, sender: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    if out.is_empty() {
        return true;
    }
    let mut chunk = std::mem::take(out);
    if let Some(left) = left {
        chunk.truncate(*left);
        *left -= chunk.len();
    }
    let more = *left != Some(0);
    sender.send(Ok(Bytes::from(chunk))).await.is_ok() && more
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn record(text: &str) -> String {
        format!("2026-01-02T03:04:05Z stdout F {text}\n")
    }

    async fn all(mut receiver: mpsc::Receiver<io::Result<Bytes>>) -> String {
        let mut text = String::new();
        while let Some(chunk) = receiver.recv().await {
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        text
    }

    async fn read(content: &str, options: LogOptions) -> String {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("0.log");
        std::fs::write(&path, content).unwrap();
        let (sender, receiver) = mpsc::channel(16);
        let file = LogFile::open(path, options.tail).unwrap();
        tokio::spawn(copy(file, options, || async { true }, Duration::from_millis(1), sender));
        all(receiver).await
    }

    #[tokio::test]
    async fn tail_and_limit_cut_the_log() {
        let content: String = (0..1000).map(|index| record(&index.to_string())).collect();
        let tail = |count| LogOptions { tail: Some(count), ..LogOptions::default() };
        assert_eq!(read(&content, tail(2)).await, "998\n999\n");
        assert_eq!(read(&content, tail(0)).await, "");
        assert_eq!(read(&content, tail(5000)).await.lines().count(), 1000);
        let limit = LogOptions { limit_bytes: Some(3), ..LogOptions::default() };
        assert_eq!(read(&content, limit).await, "0\n1");
    }

    #[tokio::test]
    async fn following_survives_rotation_and_ends_with_the_container() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("0.log");
        std::fs::write(&path, record("one")).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, mut receiver) = mpsc::channel(16);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let file = LogFile::open(path.clone(), None).unwrap();
        let flag = Arc::clone(&ended);
        let is_ended = move || {
            let now = flag.load(Ordering::Relaxed);
            async move { now }
        };
        tokio::spawn(copy(file, options, is_ended, Duration::from_millis(1), sender));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "one\n");
        let mut old = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::fs::rename(&path, root.path().join("0.log.1")).unwrap();
        old.write_all(record("two").as_bytes()).unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "two\n");
        std::fs::write(&path, record("three")).unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "three\n");
        ended.store(true, Ordering::Relaxed);
        assert!(receiver.recv().await.is_none());
    }
}
