//! A way out for a demo and for development: a line of JSON for each notice.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use flash_types::side::BoxFuture;

use super::{Notifier, Outgoing};

/// Appends to a file that only its owner may read (it holds codes and numbers); made where it is missing.
#[derive(Debug, Clone)]
pub struct FileNotifier {
    path: PathBuf,
}

impl FileNotifier {
    /// To this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn append(&self, line: &[u8]) -> std::io::Result<()> {
        // Opened each time, so that whoever moves or removes the file gets a new one.
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        // One write: lines of two processes do not mix.
        file.write_all(line)
    }
}

impl Notifier for FileNotifier {
    fn notify<'a>(&'a self, notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        let file = self.clone();
        Box::pin(async move {
            let mut line = serde_json::to_vec(notice).map_err(|error| error.to_string())?;
            line.push(b'\n');
            let path = file.path.display().to_string();
            // A file may be a pipe, or on a disk that hangs: that must not hold the thread.
            let written = tokio::task::spawn_blocking(move || file.append(&line)).await;
            written
                .map_err(|error| error.to_string())?
                .map_err(|error| format!("{path}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_are_json_and_the_file_is_the_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notifications.jsonl");
        let notifier = FileNotifier::new(&path);
        let mut notice = Outgoing {
            id: "n1".into(),
            kind: "verification".into(),
            to: "+8613800138000".into(),
            text: "a \"text\"\nof two lines".into(),
            code: Some("012345".into()),
        };
        notifier.notify(&notice).await.unwrap();
        notice.code = None;
        notifier.notify(&notice).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                serde_json::json!({"id": "n1", "kind": "verification", "to": "+8613800138000",
                    "text": "a \"text\"\nof two lines", "code": "012345"}),
                serde_json::json!({"id": "n1", "kind": "verification", "to": "+8613800138000",
                    "text": "a \"text\"\nof two lines"}),
            ]
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let nowhere = FileNotifier::new(folder.path().join("no/such"));
        let why = nowhere.notify(&notice).await.unwrap_err();
        assert!(!why.contains("138"), "{why}");
    }
}
