//! `checkpoint` and `backup`: copies of one moment, and many of them in a directory.

use std::io::Write;
use std::path::Path;

use memtide::{BackupInfo, Backups};
use serde_json::{Value, json};

use crate::args::{Backup, Global};
use crate::commands::verify;
use crate::open::{self, Access};
use crate::report::{self, Outcome};

/// Makes a database of this moment in `to`.
pub(crate) fn checkpoint(global: &Global, to: &Path) -> Outcome {
    let db = open::database(global, Access::Read)?;
    db.checkpoint(to)?;
    Ok(db.close()?)
}

/// Does what was asked of the backups.
pub(crate) fn run(global: &Global, what: &Backup) -> Outcome {
    match what {
        Backup::Create { to } => create(global, to),
        Backup::List { from } => list(global, from),
        Backup::Verify { from, full } => {
            verify::report(global, from, &Backups::new(from).verify(*full)?)
        }
        Backup::Restore { from, id, to } => {
            let restored = Backups::new(from).restore(*id, to)?;
            print(global, &restored)
        }
        Backup::Prune { from, keep } => prune(global, from, *keep),
    }
}

fn create(global: &Global, to: &Path) -> Outcome {
    let db = open::database(global, Access::Read)?;
    let made = db.backup(to)?;
    db.close()?;
    print(global, &made)
}

fn list(global: &Global, from: &Path) -> Outcome {
    let list = Backups::new(from).list()?;
    if global.json {
        report::print_json(&list.backups.iter().map(document).collect::<Vec<_>>().into())?;
    } else {
        let mut output = report::output();
        for backup in &list.backups {
            writeln!(output, "{}", line(backup))?;
        }
        output.finish()?;
    }
    for damage in &list.damages {
        report::say(format_args!("memtide: {}", damage.what));
    }
    verify::outcome(from, &list.damages, "the descriptions")
}

fn prune(global: &Global, from: &Path, keep: usize) -> Outcome {
    let pruned = Backups::new(from).prune(keep)?;
    if global.json {
        let (backups, files, bytes) = (pruned.backups, pruned.files, pruned.bytes);
        return report::print_json(&json!({ "backups": backups, "files": files, "bytes": bytes }));
    }
    let mut output = report::output();
    for id in pruned.backups {
        writeln!(output, "{id}")?;
    }
    output.finish()?;
    let bytes = report::bytes(pruned.bytes);
    report::say(format_args!("{} files ({bytes}) removed", pruned.files));
    Ok(())
}

fn print(global: &Global, backup: &BackupInfo) -> Outcome {
    if global.json {
        return report::print_json(&document(backup));
    }
    let mut output = report::output();
    writeln!(output, "{}", line(backup))?;
    output.finish()
}

fn document(backup: &BackupInfo) -> Value {
    json!({
        "id": backup.id,
        "created_ms": backup.created_ms,
        "files": backup.files,
        "bytes": backup.bytes,
        "copied_bytes": backup.copied_bytes,
    })
}

fn line(backup: &BackupInfo) -> String {
    let BackupInfo { id, created_ms, files, bytes, copied_bytes, .. } = backup;
    format!(
        "id={id} created_ms={created_ms} files={files} bytes={bytes} copied_bytes={copied_bytes}"
    )
}
