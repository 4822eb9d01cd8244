//! Programs in other languages against the C ABI: each one in `c_examples/`, `cpp_examples/` and `bindings/` is built with
//! its language's strict settings and run.
//!
//! A C or C++ program that takes arguments names them in its first lines: `run: models/digits.onnx ...`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The `libortx.so` that cargo built for this test.
pub fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libortx.so");
    assert!(library.exists(), "no {}", library.display());
    library
}

/// A folder with that library, also under the name that programs look for: its soname.
fn library_folder() -> PathBuf {
    static ONCE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| {
        let folder = scratch("library");
        for name in ["libortx.so", "libortx.so.0"] {
            std::os::unix::fs::symlink(library(), folder.join(name)).unwrap();
        }
        folder
    })
    .clone()
}

/// A fresh folder for what a test builds.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The path of the first of `names` that is on the PATH.
fn tool(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names.iter().find_map(|name| std::env::split_paths(&path).map(|p| p.join(name)).find(|p| p.is_file()))
}

fn skipped(what: &str, without: &str) {
    println!("skipped: {what}: there is no {without} here");
}

/// Runs a command; its output if it succeeds, else a panic that shows it.
fn output(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let result = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    assert!(result.status.success(), "{shown}\n{}\n{text}", result.status);
    text
}

/// The sources in `folder` that end in `.extension`.
fn sources(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut found: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == extension));
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file in {folder}");
    found
}

/// What follows `run:` in the source's first lines.
fn arguments(source: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(source).unwrap();
    let line = text.lines().take(20).find_map(|l| l.split_once("run: "));
    line.map_or(Vec::new(), |(_, rest)| rest.trim_end_matches("*/").split_whitespace().map(String::from).collect())
}

/// Compiles `source` against the library; the program.
fn compile(compiler: &Path, standard: &str, source: &Path, into: &Path) -> PathBuf {
    let program = into.join(source.file_stem().unwrap());
    let library = library_folder();
    let mut command = Command::new(compiler);
    command.args([standard, "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iinclude"]);
    command.arg(source).arg("-o").arg(&program).arg("-L").arg(&library).args(["-lortx", "-lm", "-pthread"]);
    output(command.arg(format!("-Wl,-rpath,{}", library.display())));
    program
}

fn c_compiler() -> PathBuf {
    tool(&["cc", "gcc", "clang"]).expect("a C compiler is required")
}

#[test]
fn c_examples_run() {
    let folder = scratch("c");
    for source in sources("c_examples", "c") {
        let program = compile(&c_compiler(), "-std=c99", &source, &folder);
        println!("{}", output(Command::new(program).args(arguments(&source))));
    }
}

#[test]
fn c_examples_leak_nothing() {
    let Some(valgrind) = tool(&["valgrind"]) else { return skipped("leak check of the C examples", "valgrind") };
    let folder = scratch("valgrind");
    for source in sources("c_examples", "c") {
        let program = compile(&c_compiler(), "-std=c99", &source, &folder);
        let mut command = Command::new(&valgrind);
        command.args(["-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]);
        output(command.arg(program).args(arguments(&source)));
    }
}

/// Wrong and out-of-order use of the C ABI; under valgrind where it is there.
#[test]
fn the_abi_survives_misuse() {
    let program = compile(&c_compiler(), "-std=c99", Path::new("tests/abi/abi_test.c"), &scratch("abi"));
    let mut command = match tool(&["valgrind"]) {
        Some(valgrind) => {
            let mut c = Command::new(valgrind);
            c.args(["-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]);
            c.arg(&program);
            c
        }
        None => {
            skipped("leak check of the ABI test", "valgrind");
            Command::new(&program)
        }
    };
    println!("{}", output(command.arg("models/digits.onnx")));
}

#[test]
fn cpp_examples_run() {
    let Some(compiler) = tool(&["c++", "g++", "clang++"]) else { return skipped("C++ examples", "C++ compiler") };
    let folder = scratch("cpp");
    for source in sources("cpp_examples", "cpp") {
        let program = compile(&compiler, "-std=c++17", &source, &folder);
        println!("{}", output(Command::new(program).args(arguments(&source))));
    }
}

/// Each header alone, with nothing included before it.
#[test]
fn headers_compile_by_themselves() {
    let folder = scratch("headers");
    let check = |compiler: &Path, language: &str, standard: &str, header: &str| {
        let source = folder.join("only.txt");
        std::fs::write(&source, format!("#include \"{header}\"\nint main(void) {{ return 0; }}\n")).unwrap();
        let mut command = Command::new(compiler);
        command.args([
            "-x",
            language,
            standard,
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-Iinclude",
        ]);
        output(command.arg(&source));
    };
    check(&c_compiler(), "c", "-std=c99", "ortx.h");
    let Some(cpp) = tool(&["c++", "g++", "clang++"]) else { return skipped("headers as C++", "C++ compiler") };
    check(&cpp, "c++", "-std=c++17", "ortx.h");
    check(&cpp, "c++", "-std=c++17", "ortx.hpp");
}

/// Small models for the bindings' tests: `strings.onnx` joins two string tensors, `sequence.onnx` appends a tensor to a
/// sequence, `maps.onnx` makes a sequence of maps out of two probabilities.
fn small_models() -> PathBuf {
    use crate::tiny::Tiny;
    use ortx::proto::onnx::{
        AttributeProto, OperatorSetIdProto, TypeProto, attribute_proto::AttributeType, type_proto,
    };
    use prost::Message;
    let folder = scratch(&format!("models_{:?}", std::thread::current().id()));
    let save = |name: &str, model: Vec<u8>| std::fs::write(folder.join(name), model).unwrap();
    let strings = Tiny::new("strings").input("a", 8, &["n"]).input("b", 8, &["n"]);
    save("strings.onnx", strings.node("StringConcat", &["a", "b"], &["y"]).output("y").bytes());
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: None };
    let element = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    let sequence = type_proto::Sequence { elem_type: Some(Box::new(element)) };
    let t = Tiny::new("sequence").input_of("s", type_proto::Value::SequenceType(Box::new(sequence)));
    save("sequence.onnx", t.input("x", 1, &["n"]).node("SequenceInsert", &["s", "x"], &["y"]).output("y").bytes());
    let mut t = Tiny::new("maps").input("p", 1, &["n", "2"]).node("ZipMap", &["p"], &["y"]).output("y");
    let node = t.0.node.last_mut().unwrap();
    node.domain = Some("ai.onnx.ml".into());
    node.attribute.push(AttributeProto {
        name: Some("classlabels_strings".into()),
        strings: vec!["cat".into(), "dog".into()],
        r#type: Some(AttributeType::Strings as i32),
        ..Default::default()
    });
    let mut model = t.model();
    model.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(3) });
    save("maps.onnx", model.encode_to_vec());
    let t = Tiny::new("defaults").input("x", 1, &["n"]).input("w", 1, &["1"]).constant("w", &[1], &[2.0]);
    save("defaults.onnx", t.node("Mul", &["x", "w"], &["y"]).output("y").bytes());
    folder
}

/// Each function of the ABI is called by each binding that means to be whole, but for what its language does otherwise.
#[test]
fn bindings_reach_the_whole_abi() {
    let symbols = std::fs::read_to_string("tests/abi/symbols.txt").unwrap();
    let read = |paths: Vec<PathBuf>| paths.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect::<String>();
    let bindings = [
        // Contexts reset nothing, and tell themselves whether they are done.
        ("Go", read(sources("bindings/go", "go")), &["cancel_token_reset", "cancel_token_is_cancelled"][..]),
        ("C#", read(sources("bindings/csharp", "cs")), &[]),
        ("C++", std::fs::read_to_string("include/ortx.hpp").unwrap(), &[]),
    ];
    for (language, text, without) in bindings {
        let words: std::collections::HashSet<&str> =
            text.split(|c: char| !c.is_alphanumeric() && c != '_').map(|w| w.trim_start_matches("ortx_")).collect();
        let symbols = symbols.lines().map(|s| s.trim_start_matches("ortx_")).filter(|s| !without.contains(s));
        let missing: Vec<_> = symbols.filter(|s| !words.contains(s)).collect();
        assert!(missing.is_empty(), "the binding for {language} does not reach {missing:?}");
    }
}

/// `go vet` and `go test`: the binding's tests run the digits model and meet its errors as Go errors.
#[test]
fn go_binding_runs() {
    let Some(go) = tool(&["go"]) else {
        return skipped("Go binding", "go (scripts/setup.sh venv requirements-hosts.txt)");
    };
    let version = output(Command::new(&go).arg("version").env("GOTOOLCHAIN", "local"));
    let minor = version.split("go1.").nth(1).and_then(|v| v.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    if minor.is_none_or(|m: u32| m < 22) {
        return skipped("Go binding", &format!("Go 1.22 or newer, but {}", version.trim()));
    }
    let library = library_folder();
    // Kept between runs: compiling Go's own packages takes most of a minute.
    let folder = crate::cache::root().join("go");
    let root = std::env::current_dir().unwrap();
    for arguments in [&["vet", "./..."][..], &["test", "-count=1", "./..."]] {
        let mut command = Command::new(&go);
        command.args(arguments).current_dir("bindings/go");
        command.envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=mod"), ("GOPROXY", "off"), ("CGO_ENABLED", "1")]);
        command.env("GOCACHE", folder.join("cache")).env("GOPATH", folder.join("path"));
        command.env("CGO_CFLAGS", format!("-I{}", root.join("include").display()));
        command.env("CGO_LDFLAGS", format!("-L{0} -lortx -Wl,-rpath,{0}", library.display()));
        println!("{}", output(command.env("ORTX_TEST_MODELS", small_models())));
    }
}

/// The ctypes module, under the Python that `ORTX_PYTHON` names or the PATH's, if that one has numpy.
#[test]
fn python_binding_runs() {
    let without = "Python with numpy (set ORTX_PYTHON; scripts/setup.sh venv requirements.txt makes one)";
    let named = std::env::var_os("ORTX_PYTHON").filter(|p| !p.is_empty()).map(PathBuf::from);
    let Some(python) = named.or_else(|| tool(&["python3"])) else { return skipped("Python binding", without) };
    let numpy = Command::new(&python).args(["-c", "import numpy"]).stderr(Stdio::null()).status();
    if !numpy.is_ok_and(|s| s.success()) {
        return skipped("Python binding", without);
    }
    let mut command = Command::new(python);
    command.args(["-W", "error", "bindings/python/tests/checks.py"]).arg(small_models());
    command.args(["models/digits.onnx", "models/digits_test.bin"]);
    command.env("ORTX_LIBRARY", library()).env("PYTHONPATH", "bindings/python").env("PYTHONDONTWRITEBYTECODE", "1");
    println!("{}", output(&mut command));
}

/// The C# programs, compiled by mono's compiler: run by mono, and by .NET Core, each against its own class library.
#[test]
fn csharp_binding_runs() {
    let Some(mcs) = tool(&["mcs"]) else { return skipped("C# binding", "mcs (Debian: mono-mcs)") };
    let (mono, dotnet) = (tool(&["mono"]), dotnet());
    if mono.is_none() {
        skipped("C# binding on mono", "mono (Debian: mono-runtime)");
    }
    if dotnet.is_none() {
        skipped("C# binding on .NET Core", "dotnet (scripts/setup.sh venv requirements-hosts.txt)");
    }
    let folder = scratch("csharp");
    let models = small_models().display().to_string();
    let binding = sources("bindings/csharp", "cs");
    let programs = [
        ("examples/Digits", ["models/digits.onnx", "models/digits_test.bin"]),
        ("tests/Checks", [&models, "models/digits.onnx"]),
    ];
    for (source, arguments) in programs {
        let program = folder.join(Path::new(source).file_name().unwrap());
        let source = format!("bindings/csharp/{source}.cs");
        let compile = |options: &[String], extension: &str| {
            let program = program.with_extension(extension);
            let mut command = Command::new(&mcs);
            command.args(options).arg("-unsafe").arg(format!("-out:{}", program.display())).args(&binding);
            output(command.arg(&source));
            program
        };
        let run = |runtime: &Path, program: &Path| {
            let mut command = Command::new(runtime);
            command.arg(program).args(arguments).env("LD_LIBRARY_PATH", library_folder());
            println!("{}: {}", runtime.display(), output(&mut command));
        };
        if let Some(mono) = &mono {
            run(mono, &compile(&["-langversion:7".into(), "-warnaserror".into()], "exe"));
        }
        if let Some((dotnet, framework)) = &dotnet {
            let mut options = vec!["-nostdlib".into(), "-noconfig".into(), "-langversion:latest".into()];
            let parts = "Private.CoreLib Runtime Runtime.Extensions Runtime.InteropServices Collections Linq Threading.Thread \
                         Console IO.FileSystem";
            options.extend(parts.split(' ').map(|p| format!("-r:{}/System.{p}.dll", framework.display())));
            let program = compile(&options, "dll");
            let version = framework.file_name().unwrap().to_str().unwrap();
            let config = format!(
                r#"{{"runtimeOptions": {{"framework": {{"name": "Microsoft.NETCore.App", "version": "{version}"}},
                    "configProperties": {{"System.Globalization.Invariant": true}}}}}}"#
            );
            std::fs::write(program.with_extension("runtimeconfig.json"), config).unwrap();
            run(dotnet, &program);
        }
    }
}

/// The `dotnet` that `ORTX_DOTNET` names or that is on the PATH, and the folder of its newest class library.
fn dotnet() -> Option<(PathBuf, PathBuf)> {
    let named = std::env::var_os("ORTX_DOTNET").map(PathBuf::from).filter(|p| p.is_file());
    let dotnet = named.or_else(|| tool(&["dotnet"]))?.canonicalize().ok()?;
    let versions = dotnet.parent()?.join("shared/Microsoft.NETCore.App");
    let newest = std::fs::read_dir(versions).ok()?.flatten().map(|e| e.path()).max()?;
    Some((dotnet, newest))
}
