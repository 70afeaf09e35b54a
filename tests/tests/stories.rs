//! Every story of `testdata/`, one test a file: scripts over the simulated cluster whose answers are
//! compared exactly. `VLTAVA_BLESS=1` writes what the cluster answered into the files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use vltava_tests::script::{BLESS, check};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let is_blessed = std::env::var_os(BLESS).is_some_and(|value| value == "1");
    let trials = match stories() {
        Ok(paths) if !paths.is_empty() => paths.into_iter().map(|path| trial(path, is_blessed)),
        Ok(_) => return fail("there are no stories in testdata/"),
        Err(error) => return fail(&format!("testdata/: {error}")),
    };
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

fn trial(path: PathBuf, is_blessed: bool) -> Trial {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Trial::test(name, move || {
        check(&path, is_blessed)
            .map_err(|error| Failed::from(format!("{}: {error}", path.display())))
    })
}

/// The files in the order of their names.
fn stories() -> std::io::Result<Vec<PathBuf>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    #[allow(clippy::disallowed_methods, reason = "a test reads its own scripts")]
    let entries = std::fs::read_dir(dir)?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let is_story = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "txt");
    let mut stories: Vec<_> = paths?.into_iter().filter(is_story).collect();
    stories.sort();
    Ok(stories)
}
