// pinhole tokenize: text to token ids and back.
#include "answer/gguf_tokenizer.h"
#include "base/mapped_file.h"
#include "cli/common.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

namespace pinhole::cli {

namespace {

struct TokenizeOptions {
  std::string model, text;
  std::vector<TokenId> decode;
  bool special = false;
  bool bos = false;
  bool json = false;
};

int run(TokenizeOptions options) {
  if (options.model.empty()) {
    auto path = default_model();
    if (!path)
      return report(path.error());
    options.model = *path;
  }
  const auto file = ModelFile::open(options.model);
  if (!file)
    return report(file.error());
  const auto tokenizer = tokenizer_from_model(*file);
  if (!tokenizer)
    return report(tokenizer.error());

  std::vector<TokenId> ids = options.decode;
  if (ids.empty()) {
    if (options.text.empty()) {
      auto text = read_stream(STDIN_FILENO, "standard input", 256 << 20);
      if (!text)
        return report(text.error());
      options.text = *text;
    }
    ids = tokenizer->encode(options.text, options.special, options.bos);
  }
  for (const TokenId id : ids) {
    if (id < 0 || id >= tokenizer->vocab_size()) {
      return report(
          {ErrorCode::kInvalidInput,
           fmt::format("token id {} is outside the vocabulary of {}", id, tokenizer->vocab_size()),
           {},
           {}});
    }
  }
  if (options.json) {
    Json pieces = Json::array();
    for (const TokenId id : ids)
      pieces.push_back(std::string(tokenizer->piece(id)));
    const Json out = {{"ids", ids},
                      {"pieces", std::move(pieces)},
                      {"text", tokenizer->decode(ids, false)},
                      {"count", ids.size()}};
    fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
  } else if (!options.decode.empty()) {
    fmt::print("{}\n", tokenizer->decode(ids, false));
  } else {
    fmt::print("{}\n", fmt::join(ids, " "));
  }
  return kExitOk;
}

} // namespace

void add_tokenize(CLI::App& app, int& exit) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* tokenize = app.add_subcommand("tokenize", "Show the token ids of a text");
  tokenize->footer(
      "Examples:\n"
      "  pinhole tokenize \"Hello world\"\n"
      "  pinhole tokenize -m Qwen3-VL-2B-Instruct/ --special \"<|im_start|>user\" --json\n"
      "  pinhole tokenize --decode 9707,1879");
  tokenize->add_option("text", options->text, "The text (default: standard input)");
  tokenize->add_option("-m,--model", options->model, "A .gguf or a folder (default: bundled)");
  tokenize->add_option("--decode", options->decode, "Token ids to turn into text instead")
      ->delimiter(',');
  tokenize->add_flag("--special", options->special, "Special tokens in the text become their ids");
  tokenize->add_flag("--bos", options->bos, "Add BOS where the tokenizer's settings say so");
  tokenize->add_flag("--json", options->json, "Print ids, pieces and text as JSON");
  tokenize->callback([options, &exit] { exit = run(*options); });
}

} // namespace pinhole::cli
