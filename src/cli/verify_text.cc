// Tokenizer vectors and chat templates against the reference.
#include "cli/verify_report.h"
#include "cli/xz.h"

#include "answer/gguf_tokenizer.h"
#include "base/mapped_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>
#include <sstream>
#include <unistd.h>

namespace pinhole::cli {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxVectorBytes = 64 << 20;
constexpr uint64_t kMaxVocabularyBytes = 256 << 20;

// A file with `content` that is gone when the object is.
class TemporaryFile {
 public:
  static Result<TemporaryFile> create(const std::string& content) {
    std::string path = (fs::temp_directory_path() / "pinhole-XXXXXX").string();
    const int fd = ::mkstemp(path.data());
    if (fd < 0)
      return fail(ErrorCode::kIo, "cannot create a temporary file", path);
    TemporaryFile file(path);
    size_t written = 0;
    while (written < content.size()) {
      const ssize_t n = ::write(fd, content.data() + written, content.size() - written);
      if (n <= 0)
        break;
      written += static_cast<size_t>(n);
    }
    ::close(fd);
    if (written < content.size())
      return fail(ErrorCode::kIo, "cannot write", path);
    return file;
  }
  TemporaryFile(TemporaryFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile() {
    if (!path_.empty())
      ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

Result<std::string> read_maybe_xz(const fs::path& path, uint64_t max_bytes) {
  return path.extension() == ".xz" ? read_xz_file(path.string(), max_bytes)
                                   : read_text_file(path.string(), max_bytes);
}

Result<Tokenizer> open_vocabulary(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name.find("tokenizer.json") != std::string::npos) {
    PINHOLE_TRY(const std::string text, read_maybe_xz(path, kMaxVocabularyBytes));
    return Tokenizer::from_json(text, Json(), path.string());
  }
  std::optional<TemporaryFile> unpacked;
  std::string file_path = path.string();
  if (path.extension() == ".xz") {
    PINHOLE_TRY(const std::string content, read_xz_file(path.string(), kMaxVocabularyBytes));
    PINHOLE_TRY(TemporaryFile temporary, TemporaryFile::create(content));
    unpacked.emplace(std::move(temporary));
    file_path = unpacked->path();
  }
  PINHOLE_TRY(const ModelFile model, ModelFile::open(file_path));
  return tokenizer_from_model(model);
}

Result<std::vector<std::string>> read_records(const fs::path& path) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  PINHOLE_TRY(const std::string text, read_text_file(path.string(), kMaxVectorBytes));
  std::vector<std::string> out;
  size_t at = 0;
  for (size_t end = text.find(kSeparator); end != std::string::npos;
       end = text.find(kSeparator, at)) {
    out.push_back(text.substr(at, end - at));
    at = end + kSeparator.size();
  }
  if (at < text.size())
    out.push_back(text.substr(at));
  return out;
}

Result<std::vector<std::vector<TokenId>>> read_id_lines(const fs::path& path) {
  PINHOLE_TRY(const std::string text, read_text_file(path.string(), kMaxVectorBytes));
  std::vector<std::vector<TokenId>> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    out.emplace_back();
    for (TokenId id = 0; words >> id;)
      out.back().push_back(id);
  }
  return out;
}

// Records of `input` through `tokenizer` against the lines of `expected`.
void check_vectors(const Tokenizer& tokenizer, const fs::path& input, const fs::path& expected,
                   bool parse_special, const std::string& name, VerifyReport& report) {
  const auto records = read_records(input);
  const auto lines = read_id_lines(expected);
  if (!records || !lines) {
    report.add(Outcome::kFailed, name, (records ? lines.error() : records.error()).text());
    return;
  }
  if (records->size() != lines->size()) {
    report.add(Outcome::kFailed, name,
               fmt::format("{} records, {} expected lines", records->size(), lines->size()));
    return;
  }
  size_t same = 0;
  std::string first;
  for (size_t i = 0; i < records->size(); ++i) {
    const std::vector<TokenId> own = tokenizer.encode((*records)[i], parse_special, false);
    if (own == (*lines)[i])
      ++same;
    else if (first.empty())
      first = fmt::format(", first difference in record {}", i + 1);
  }
  report.passed_if(same == records->size(), name,
                   fmt::format("{} of {} records agree{}", same, records->size(), first));
}

// "qwen2" for vocab-qwen2.gguf.xz, ggml-vocab-qwen2.gguf, qwen2.tokenizer.json; empty for others.
std::string vocabulary_key(std::string name) {
  if (name.ends_with(".xz"))
    name.resize(name.size() - 3);
  for (const std::string_view prefix : {"ggml-vocab-", "vocab-"}) {
    if (name.starts_with(prefix) && name.ends_with(".gguf")) {
      return name.substr(prefix.size(), name.size() - prefix.size() - 5);
    }
  }
  constexpr std::string_view kJson = ".tokenizer.json";
  return name.ends_with(kJson) ? name.substr(0, name.size() - kJson.size()) : std::string();
}

} // namespace

void verify_tokenizers(const fs::path& folder, VerifyReport& report) {
  std::vector<fs::path> vocabularies;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!vocabulary_key(entry.path().filename().string()).empty()) {
      vocabularies.push_back(entry.path());
    }
  }
  std::sort(vocabularies.begin(), vocabularies.end());
  if (vocabularies.empty()) {
    report.add(Outcome::kSkipped, report.relative(folder), "no vocabulary beside the vectors");
  }
  const fs::path extra = folder / "extra";
  for (const fs::path& vocabulary : vocabularies) {
    const std::string file = vocabulary.filename().string();
    const std::string key = vocabulary_key(file);
    const std::string name = report.relative(vocabulary);
    const auto tokenizer = open_vocabulary(vocabulary);
    if (!tokenizer) {
      report.add(Outcome::kFailed, name, tokenizer.error().text());
      continue;
    }
    const bool is_json = file.find("tokenizer.json") != std::string::npos;
    // tokenizer.json may normalise where llama.cpp does not: its own expected ids are in .hf.out.
    const auto expected = [&](const std::string& stem) {
      const fs::path own = extra / (stem + ".hf.out");
      return is_json && fs::exists(own) ? own : extra / (stem + ".out");
    };
    const fs::path official = folder / ("ggml-vocab-" + key + ".gguf.inp");
    if (fs::exists(official)) {
      check_vectors(*tokenizer, official, folder / ("ggml-vocab-" + key + ".gguf.out"), false,
                    name + " official", report);
    }
    if (fs::exists(expected(key + ".plain"))) {
      check_vectors(*tokenizer, extra / "plain.inp", expected(key + ".plain"), false,
                    name + " plain", report);
    }
    if (fs::exists(expected(key + ".special"))) {
      check_vectors(*tokenizer, extra / (key + ".special.inp"), expected(key + ".special"), true,
                    name + " special", report);
    }
  }
}

void verify_chat_templates(const fs::path& folder, VerifyReport& report) {
  const auto document = read_json_file((folder / "rendered.json").string());
  const Json* entries = document ? json_find(*document, "entries") : nullptr;
  if (entries == nullptr || !entries->is_array()) {
    report.add(Outcome::kFailed, report.relative(folder / "rendered.json"),
               document ? "has no list 'entries'" : document.error().text());
    return;
  }
  for (const Json& entry : *entries) {
    const std::string file = entry.value("template", "");
    const std::string name =
        fmt::format("{} {}{}", report.relative(folder / file), entry.value("case", "?"),
                    entry.value("add_generation_prompt", false) ? " +generation prompt" : "");
    const auto source = read_text_file((folder / file).string(), 16 << 20);
    if (!source) {
      report.add(Outcome::kFailed, name, source.error().text());
      continue;
    }
    Json context = Json::object();
    if (const Json* kwargs = json_find(entry, "kwargs"))
      context = *kwargs;
    for (const char* key :
         {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}) {
      if (entry.contains(key))
        context[key] = entry[key];
    }
    const auto chat_template = ChatTemplate::parse(*source, file);
    const Result<std::string> rendered =
        chat_template ? chat_template->render(context)
                      : Result<std::string>(tl::unexpected(chat_template.error()));
    if (entry.contains("error")) {
      report.passed_if(!rendered, name,
                       rendered ? "rendered, where an error was expected"
                                : "refused as expected: " + rendered.error().message);
      continue;
    }
    if (!rendered) {
      report.add(Outcome::kFailed, name, rendered.error().text());
      continue;
    }
    const std::string expected = entry.value("rendered", "");
    const auto [own, want] =
        std::mismatch(rendered->begin(), rendered->end(), expected.begin(), expected.end());
    report.passed_if(*rendered == expected, name,
                     *rendered == expected
                         ? fmt::format("{} bytes agree", expected.size())
                         : fmt::format("differs at byte {}", want - expected.begin()));
  }
}

} // namespace pinhole::cli
