//! Settings from files: what counts more, what is refused, what is shown.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A user with a project.
struct User {
    folder: TempDir,
}

impl User {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("config/puna")).expect("a folder");
        std::fs::create_dir_all(folder.path().join("work/inner")).expect("a folder");
        std::fs::create_dir(folder.path().join("work/.git")).expect("a folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        // The current folder comes back with symbolic links resolved.
        self.folder.path().canonicalize().expect("a folder").join(name)
    }

    fn project(self, text: &str) -> Self {
        std::fs::write(self.path("work/puna.toml"), text).expect("a file");
        self
    }

    fn own(self, text: &str) -> Self {
        std::fs::write(self.path("config/puna/config.toml"), text).expect("a file");
        self
    }

    /// `puna` in a folder of the project.
    fn puna(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
        for name in ["PUNA_MODEL", "PUNA_THREADS", "PUNA_STATE", "PUNA_API_KEY", "PUNA_API_KEY_FILE", "OPENAI_API_KEY"]
        {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.path("work/inner"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("APPDATA", self.path("config"))
            .env("HOME", self.path("home"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("puna runs")
    }

    fn ok(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.puna(arguments, variables);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
        serde_json::from_str(&self.ok(arguments, variables)).expect("JSON")
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.puna(arguments, &[]);
        let errors = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        errors
    }

    /// A setting of `serve`.
    fn setting(&self, key: &str, flags: &[&str], variables: &[(&str, &str)]) -> Value {
        let all = self.json(&[&["config", "show", "--json", "serve"], flags].concat(), variables);
        all["commands"]["serve"][key].clone()
    }
}

fn model(folder: &Path) {
    std::fs::create_dir(folder).expect("a folder");
    it::speaking::write(folder).expect("the toy is written");
}

#[test]
fn a_flag_counts_more_than_the_environment_than_the_project_than_the_user_than_the_default() {
    let user = User::new().own("parallel = 1\nthreads = 2\n[serve]\nport = 3\ndrain = 4\n");
    let own = user.path("config/puna/config.toml");
    let shown = |value: u64, line: usize| json!({"value": value, "origin": "user file", "path": own, "line": line});
    assert_eq!(user.setting("port", &[], &[]), shown(3, 4));
    assert_eq!(user.setting("threads", &[], &[]), shown(2, 2));
    assert_eq!(user.setting("host", &[], &[]), json!({"value": "127.0.0.1", "origin": "default"}));
    assert_eq!(user.setting("name", &[], &[]), json!({"value": null, "origin": null}));
    let user = user.project("port = 30\n[serve]\nthreads = 20\nparallel = 10\n");
    let project = user.path("work/puna.toml");
    let theirs =
        |value: u64, line: usize| json!({"value": value, "origin": "project file", "path": project, "line": line});
    assert_eq!(user.setting("port", &[], &[]), theirs(30, 1), "the project counts more, be it outside of tables");
    assert_eq!(user.setting("threads", &[], &[]), theirs(20, 3));
    assert_eq!(user.setting("drain", &[], &[]), shown(4, 5));
    let variables = [("PUNA_THREADS", "200")];
    let env = json!({"value": 200, "origin": "env", "variable": "PUNA_THREADS"});
    assert_eq!(user.setting("threads", &[], &variables), env);
    let flag = json!({"value": 2000, "origin": "flag"});
    assert_eq!(user.setting("threads", &["--threads", "2000"], &variables), flag);
    let text = user.ok(&["config", "show", "--origin", "serve", "--threads", "7"], &variables);
    for want in [
        format!("# project file: {}", project.display()),
        format!("# user file: {}", own.display()),
        "threads = 7  # flag".into(),
        format!("port = 30  # {}:1", project.display()),
        format!("drain = 4  # {}:5", own.display()),
        "host = \"127.0.0.1\"  # default".into(),
        "# name is not set".into(),
    ] {
        assert!(text.lines().any(|line| line == want), "{want}: {text}");
    }
}

#[test]
fn a_command_does_what_a_file_says_unless_it_is_told_otherwise() {
    let user = User::new().project("model = \"toy\"\nthreads = 1\n[run]\nmax-tokens = 3\ntemp = 0.0\njson = true\n");
    model(&user.path("work/toy"));
    let report = user.json(&["run", "Hello"], &[]);
    assert_eq!(report["usage"]["completion_tokens"], 3, "the model is beside the file, not in the current folder");
    let report = user.json(&["run", "--max-tokens", "5", "Hello"], &[]);
    assert_eq!(report["usage"]["completion_tokens"], 5);
    let text = user.ok(&["run", "--json=false", "Hello"], &[]);
    assert!(serde_json::from_str::<Value>(&text).is_err(), "a switch of a file is undone: {text}");
    let ids = user.json(&["tokenize", "--json", "Hi"], &[]);
    assert_eq!(ids["ids"], json!(b"Hi"), "what stands outside of tables goes to every command that has it");
}

#[test]
fn what_no_command_knows_is_refused_with_its_line_and_the_nearest_name() {
    for (text, line, names) in [
        ("[serv]\nport = 1\n", 1, &["\"serv\"", "the nearest is \"serve\"", "`puna --help` lists all"][..]),
        (
            "[serve]\n\nprot = 1\n",
            3,
            &["serve has no setting \"prot\"", "the nearest is \"port\"", "puna serve --help"],
        ),
        ("[serve]\napi_key_file = \"x\"\n", 2, &["\"api_key_file\"", "the nearest is \"api-key-file\""]),
        ("[serve]\nhelp = true\n", 2, &["\"help\""]),
        ("[completions]\nshell = \"bash\"\n", 1, &["\"completions\""]),
        ("[inspect]\nmodel = \"x\"\n", 2, &["inspect has no setting \"model\""]),
        ("treads = 1\n", 1, &["no command has a setting \"treads\"", "the nearest is \"threads\""]),
        ("threads = \"many\"\n", 1, &["threads = \"many\": invalid digit", "hint:  `puna"]),
        ("threads = 0\n", 1, &["threads = \"0\""]),
        ("[serve]\nport = 70000\n", 2, &["port = \"70000\"", "65535"]),
        ("[serve]\nport = true\n", 2, &["port = true: it takes a text or a number"]),
        ("[serve]\nport = [1, 2]\n", 2, &["it takes one value, not a list"]),
        ("[serve]\nport = {a = 1}\n", 2, &["port is of a kind that no setting has"]),
        ("[serve]\nport = 1979-05-27\n", 2, &["port is of a kind that no setting has"]),
        ("[serve]\nno-ui = \"yes\"\n", 2, &["no-ui = \"yes\": it takes true or false"]),
        ("[serve]\nkv = \"f8\"\n", 2, &["kv = \"f8\": it takes f32, f16, q8"]),
        ("[run]\ntemp = 0\ntemperature = 1\n", 3, &["temperature is said twice", "say temp once"]),
        ("[serve]\nport = 1\nport = 2\n", 3, &["duplicate key"]),
        ("[serve\n", 1, &["hint:  write TOML"]),
        ("[bench]\npython = \"./python\"\n", 2, &["names a program or a server, which a project's file may not"]),
        ("[bench]\nagainst = \"http://example.org\"\n", 2, &["names a program or a server"]),
    ] {
        let user = User::new().project(text);
        let file = user.path("work/puna.toml");
        for command in [&["ps"][..], &["run", "-m", "x", "Hi"], &["config", "show"]] {
            let message = user.refused(command);
            assert!(message.starts_with(&format!("error: {}:{line}: ", file.display())), "{text}: {message}");
            assert!(message.contains("\nhint:  "), "{text}: {message}");
            for name in names {
                assert!(message.contains(name), "{text} has no {name}: {message}");
            }
        }
        assert!(user.ok(&["run", "--help"], &[]).contains("Usage"), "help does not read files");
        user.ok(&["completions", "bash"], &[]);
    }
    let user = User::new().own("[bench]\npython = \"python9\"\n");
    let shown = user.json(&["config", "show", "--json", "bench"], &[]);
    assert_eq!(shown["commands"]["bench"]["python"]["value"], "python9", "one's own file may name a program");
}

#[test]
fn paths_begin_at_their_file_and_words_are_no_paths() {
    let own = "[serve]\napi-key-file = \"keys\"\nstate = \"none\"\nname = \"keys\"\nmmproj = \"~/m.gguf\"\n[plan]\nhw = \"auto\"\n";
    let user = User::new().own(own);
    let folder = user.path("config/puna");
    assert_eq!(user.setting("api-key-file", &[], &[])["value"], json!(folder.join("keys")));
    assert_eq!(user.setting("state", &[], &[])["value"], "none");
    assert_eq!(user.setting("name", &[], &[])["value"], "keys");
    assert_eq!(user.setting("mmproj", &[], &[])["value"], json!(user.path("home/m.gguf")));
    let hw =
        |user: &User| user.json(&["config", "show", "--json", "plan"], &[])["commands"]["plan"]["hw"]["value"].clone();
    assert_eq!(hw(&user), "auto");
    let user = user.own("[plan]\nhw = \"machine.json\"\n");
    assert_eq!(hw(&user), "machine.json");
    std::fs::write(folder.join("machine.json"), "{}").expect("a file");
    assert_eq!(hw(&user), json!(folder.join("machine.json")), "a file that is there is meant");
    let absolute = user.path("home/x.gguf");
    let user = user.own(&format!("model = {:?}\n", absolute.display().to_string()));
    assert_eq!(user.setting("model", &[], &[])["value"], json!(absolute));
}

#[test]
fn rules_between_flags_hold_for_files_and_what_is_given_counts_more() {
    let user = User::new().own("model = \"toy\"\n[serve]\ntls-cert = \"cert.pem\"\n");
    let message = user.refused(&["serve"]);
    assert!(message.contains("--tls-key") && message.contains("config.toml is part of this"), "{message}");
    // A flag that excludes what a file says is followed: nothing answers there.
    let output = user.puna(&["bench", "--load", "http://127.0.0.1:9", "--seconds", "1"], &[]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("cannot be used with") && errors.contains("127.0.0.1:9"), "{errors}");
    // So is a table that excludes what stands outside.
    let user = user.own("model = \"toy\"\n[bench]\nload = \"http://127.0.0.1:9\"\nseconds = 1\n");
    let shown = user.json(&["config", "show", "--json", "bench"], &[]);
    assert_eq!(shown["commands"]["bench"]["model"]["value"], "nano");
    // Within a table it is a mistake.
    let user = user.own("[trace]\nids = [1]\nids-file = \"ids\"\nout = \"x\"\n");
    let message = user.refused(&["trace", "toy"]);
    assert!(message.contains("cannot be used with") && message.contains("is part of this"), "{message}");
    let shown = user.ok(&["config", "show", "trace"], &[]);
    assert!(shown.contains("\nids = [1]") && shown.contains("\nids-file = "), "what is against what is shown: {shown}");
}

#[test]
fn secrets_are_never_shown() {
    const SECRET: &str = "sk-not-to-be-seen";
    let user = User::new().own(&format!("[bench]\napi-key = \"{SECRET}\"\n"));
    for arguments in [&["config", "show"][..], &["config", "show", "--origin", "bench"], &["config", "show", "--json"]]
    {
        let text = user.ok(arguments, &[]);
        assert!(text.contains("api-key") && !text.contains(SECRET), "{text}");
        let text = User::new().ok(arguments, &[("PUNA_API_KEY", SECRET)]);
        assert!(text.contains("api-key") && !text.contains(SECRET), "{text}");
    }
    let user = user.own(&format!("[bench]\napi-key = [\"{SECRET}\"]\n"));
    let message = user.refused(&["ps"]);
    assert!(message.contains("api-key: it takes one value") && !message.contains(SECRET), "{message}");
}

#[test]
fn what_is_shown_is_itself_a_file_that_changes_nothing() {
    let user = User::new()
        .own("model = \"a \\\"b\\\" é\"\n[serve]\nalias = [\"x\", \"y\"]\nno-ui = true\n[run]\nthink = true\n");
    let settings = |user: &User| -> Vec<String> {
        let text = user.ok(&["config", "show"], &[]);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let before = settings(&user);
    for line in ["alias = [\"x\",\"y\"]", "no-ui = true", "think = \"on\"", "prefill = [64,512,2048]", "port = 8080"] {
        assert!(before.iter().any(|one| one == line), "{line}: {before:?}");
    }
    let user = user.own(&before.join("\n"));
    assert_eq!(settings(&user), before);
    let none = user.refused(&["config", "show", "completions"]);
    assert!(none.contains("\"completions\" is no command with settings") && none.contains("serve"), "{none}");
}
