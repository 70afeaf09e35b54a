//! Foreign clients, installed once under `target/test-tools` by their ordinary package clients.
//!
//! Every installation is guarded by a file lock, so that tests running side by side install once,
//! and stamped with a hash of what it was made from, so that a changed list is installed anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;

use super::{Missing, Tested, paths, process};

/// How long an installation may take, downloads included.
const INSTALL_DEADLINE: Duration = Duration::from_mins(10);

/// What looking for a toolchain gives: a failure, or the reason to skip, or the tool.
pub type Toolchain<T> = Tested<Result<T, Missing>>;

/// A Python virtual environment with the clients of `tests/clients/python/requirements.txt`;
/// gives its interpreter.
pub fn python() -> Toolchain<PathBuf> {
    if !process::exists("python3") {
        return Ok(Err(Missing("python3 is not installed".into())));
    }
    let requirements = paths::tests_crate().join("clients/python/requirements.txt");
    let root = paths::target()?.join("test-tools/python");
    let interpreter = root.join("bin/python");
    once(&root, std::slice::from_ref(&requirements), || {
        let mut venv = Command::new("python3");
        process::succeed(venv.args(["-m", "venv"]).arg(&root), b"", INSTALL_DEADLINE)?;
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        process::succeed(pip.arg(&requirements), b"", INSTALL_DEADLINE)?;
        Ok(())
    })?;
    Ok(Ok(interpreter))
}

/// Apache Kafka's own clients and tools, and our programs on top of them.
#[derive(Debug, Clone)]
pub struct Java {
    class_path: String,
    logging: PathBuf,
}

impl Java {
    /// A command that runs the class named `main`; the caller adds its arguments.
    pub fn command(&self, main: &str) -> Command {
        let mut command = Command::new("java");
        // Small and quick to start: these programs live for seconds, several at a time.
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(&self.class_path);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()));
        command.arg(main);
        command
    }
}

/// Compiles the Maven project under `tests/clients/java` once and resolves its class path.
pub fn java() -> Toolchain<Java> {
    for program in ["java", "javac", "mvn"] {
        if !process::exists(program) {
            return Ok(Err(Missing(format!("{program} is not installed"))));
        }
    }
    let project = paths::tests_crate().join("clients/java");
    let root = paths::target()?.join("test-tools/java");
    let class_path = root.join("class.path");
    let mut sources = files(&project.join("src/main/java"), "java")?;
    sources.push(project.join("pom.xml"));
    once(&root, &sources, || {
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--file"]).arg(project.join("pom.xml"));
        maven.arg(format!("-Doutput.directory={}", root.display()));
        maven.args(["compile", "dependency:build-classpath"]);
        maven.arg(format!("-Dmdep.outputFile={}", class_path.display()));
        process::succeed(&mut maven, b"", INSTALL_DEADLINE)?;
        Ok(())
    })?;
    let dependencies = std::fs::read_to_string(class_path)?;
    let class_path = format!("{}:{}", root.join("classes").display(), dependencies.trim());
    Ok(Ok(Java { class_path, logging: project.join("log4j2.properties") }))
}

/// The program of `tests/clients/go` with every Go client in it, compiled once. Its modules and
/// Go's build cache outlive a change of the program, which then compiles within seconds.
pub fn go() -> Toolchain<PathBuf> {
    if !process::exists("go") {
        return Ok(Err(Missing("go is not installed".into())));
    }
    let project = paths::tests_crate().join("clients/go");
    let tools = paths::target()?.join("test-tools");
    let root = tools.join("go");
    let program = root.join("clients");
    let mut sources = files(&project, "go")?;
    sources.extend([project.join("go.mod"), project.join("go.sum")]);
    once(&root, &sources, || {
        let mut go = Command::new("go");
        go.current_dir(&project).env("GOFLAGS", "-modcacherw -buildvcs=false -mod=readonly");
        // A newer toolchain is never downloaded: what is installed must do.
        go.env("GOTOOLCHAIN", "local").env("GOMODCACHE", tools.join("go-modules"));
        go.env("GOCACHE", tools.join("go-cache"));
        // Neither debug information nor symbols: linking is the slow half.
        go.args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg(".");
        process::succeed(&mut go, b"", INSTALL_DEADLINE)?;
        Ok(())
    })?;
    Ok(Ok(program))
}

/// A directory with the packages of `tests/clients/node/package.json` and the programs beside it.
pub fn node() -> Toolchain<PathBuf> {
    for program in ["node", "npm"] {
        if !process::exists(program) {
            return Ok(Err(Missing(format!("{program} is not installed"))));
        }
    }
    let project = paths::tests_crate().join("clients/node");
    let root = paths::target()?.join("test-tools/node");
    let mut sources = files(&project, "js")?;
    sources.push(project.join("package.json"));
    once(&root, &sources, || {
        // Node resolves packages beside a program, so the programs move to the packages.
        for source in &sources {
            std::fs::copy(source, root.join(source.file_name().ok_or("a file has a name")?))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]);
        // A package that must compile or fetch something of its own is not wanted.
        process::succeed(npm.arg("--ignore-scripts").current_dir(&root), b"", INSTALL_DEADLINE)?;
        Ok(())
    })?;
    Ok(Ok(root))
}

/// The files of one directory with this extension, in the order of their names.
fn files(directory: &Path, extension: &str) -> Tested<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs `install` unless `root` was already installed from the same `sources`.
fn once(root: &Path, sources: &[PathBuf], install: impl FnOnce() -> Tested) -> Tested {
    let parent = root.parent().ok_or("a tool directory has a parent")?;
    std::fs::create_dir_all(parent)?;
    let lock = std::fs::File::create(root.with_extension("lock"))?;
    lock.lock()?;
    let mut hasher = DefaultHasher::new();
    for source in sources {
        std::fs::read(source)?.hash(&mut hasher);
    }
    let (stamp, expected) = (root.join(".installed"), format!("{:016x}", hasher.finish()));
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == expected) {
        return Ok(());
    }
    if root.exists() {
        std::fs::remove_dir_all(root)?;
    }
    std::fs::create_dir_all(root)?;
    install().map_err(|failed| {
        let message = failed.message().unwrap_or("no message").to_owned();
        Failed::from(format!("installing {}: {message}", root.display()))
    })?;
    Ok(std::fs::write(stamp, expected)?)
}
