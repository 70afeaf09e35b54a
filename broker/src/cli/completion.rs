//! `vltava completion`: scripts by which a shell completes commands and options.

use clap::{Args, Command};
use clap_complete::Shell;

use super::{CommandError, output};

/// `vltava completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(vltava completion bash)
  vltava completion zsh > ~/.zfunc/_vltava
  vltava completion fish > ~/.config/fish/completions/vltava.fish")]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_name = "bash|zsh|fish", value_parser = shell)]
    shell: Shell,
}

fn shell(name: &str) -> Result<Shell, String> {
    match name {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("not bash, zsh or fish".to_owned()),
    }
}

/// Prints the script for `command`.
pub fn run(args: &CompletionArgs, mut command: Command) -> Result<(), CommandError> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}
