//! `weft apply`: puts objects into the folder.

use std::io::Read;
use std::path::{Path, PathBuf};

use anstream::{eprintln, println};
use anyhow::Context;
use istio_compat::object::Object;

use crate::command::Global;
use crate::exit::{Exit, OrExit, Result};
use crate::objects::{self, Change, Input, Objects, display_name};

const EXAMPLES: &str = "\
Examples:
  weft apply -f policy.yaml
  weft apply -f ./objects/
  cat web.yaml | weft apply -f -
";

/// Create or change objects of the folder
///
/// An object that is in the folder is replaced where it stands, another gets a file of its own.
/// Everything is read and checked first: with one mistake, nothing is applied.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A file, a folder, or - for standard input; may be given more than once
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let input = read(&self.files, global.namespace.as_deref())?;
        let mut folder = Objects::open(&global.state()?)?;
        for (object, text) in &input {
            put(&mut folder, object, text)?;
        }
        Ok(())
    }
}

/// Puts an object into the folder, and says what that changed.
pub(crate) fn put(folder: &mut Objects, object: &Object, text: &str) -> Result {
    let change = match folder.put(object, text)? {
        Change::Created => "created",
        Change::Configured => "configured",
        Change::Unchanged => "unchanged",
    };
    println!("{} {change}", display_name(&object.key()));
    Ok(())
}

/// Everything in these files, or every mistake in them.
pub(crate) fn read(paths: &[PathBuf], namespace: Option<&str>) -> Result<Vec<(Object, String)>> {
    let mut all = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        for file in objects::files(path)? {
            let (name, content) = content(&file)?;
            match Input::parse(&name, &content, namespace) {
                Ok(input) => {
                    for warning in &input.warnings {
                        eprintln!("{warning}");
                    }
                    all.extend(input.objects);
                }
                Err(mistakes) => errors.extend(mistakes),
            }
        }
    }
    errors.extend(istio_compat::parse::duplicates(
        all.iter().map(|(object, _)| object),
    ));
    if errors.is_empty() {
        return Ok(all);
    }
    let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
    Err(Exit::BadInput.because(format!("nothing was applied:\n{}", text.join("\n"))))
}

fn content(file: &Path) -> Result<(String, Vec<u8>)> {
    if file == Path::new("-") {
        let mut content = Vec::new();
        std::io::stdin().read_to_end(&mut content)?;
        return Ok(("standard input".to_owned(), content));
    }
    let content = std::fs::read(file)
        .with_context(|| format!("reading {}", file.display()))
        .or_exit(Exit::BadInput)?;
    Ok((file.display().to_string(), content))
}
