#include "answer/prompt.h"

#include "base/function_ref.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace pinhole {

namespace {

constexpr std::string_view kSplitMark = "\xEF\xB7\x90"; // U+FDD0, a noncharacter

// A user's own marks would come off later and join what they split.
std::string without_marks(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (out.ends_with(kSplitMark))
      out.resize(out.size() - kSplitMark.size());
  }
  return out;
}

// Puts the mark behind the first character of everything that spells a control token.
std::string guard(std::string_view words, const std::vector<std::string>& control_tokens) {
  const std::string text = without_marks(words);
  const std::string_view view = text;
  std::string out;
  for (size_t i = 0; i < view.size();) {
    const bool forged =
        std::any_of(control_tokens.begin(), control_tokens.end(),
                    [&](const std::string& token) { return view.substr(i).starts_with(token); });
    out += view[i++];
    if (!forged)
      continue;
    while (i < view.size() && (static_cast<uint8_t>(view[i]) & 0xC0) == 0x80)
      out += view[i++];
    out += kSplitMark;
  }
  return out;
}

size_t count(std::string_view text, std::string_view needle) {
  size_t n = 0;
  for (size_t at = text.find(needle); at != std::string_view::npos;
       at = text.find(needle, at + needle.size())) {
    ++n;
  }
  return n;
}

// A user's words cannot spell the mark, which is a control token: guard() split it.
std::string expand_picture_marks(const LoadedModel& loaded, std::string_view text) {
  std::string out(text);
  if (!loaded.model.pictures || loaded.model.pictures->picture_mark.empty())
    return out;
  const PictureSpec& spec = *loaded.model.pictures;
  const std::string full = spec.before + spec.image_token + spec.after;
  for (size_t at = out.find(spec.picture_mark); at != std::string::npos;
       at = out.find(spec.picture_mark, at + full.size())) {
    out.replace(at, spec.picture_mark.size(), full);
  }
  return out;
}

enum class ContentForm { kParts, kText };

// The same in all texts of a value that a template may write.
Json guard_all(const Json& value, const std::vector<std::string>& control_tokens) {
  if (value.is_string())
    return guard(value.get_ref<const std::string&>(), control_tokens);
  Json out = value;
  if (value.is_structured()) {
    for (Json& member : out)
      member = guard_all(member, control_tokens);
  }
  return out;
}

// A turn's content where its pictures stand between its words; `picture` writes one.
void write_parts(const ChatTurn& turn, const std::vector<std::string>& control_tokens,
                 FunctionRef<void()> picture, FunctionRef<void(std::string text)> words) {
  size_t at = 0;
  for (size_t i = 0; i < turn.pictures.size(); ++i) {
    const size_t place = i < turn.picture_places.size() ? turn.picture_places[i] : 0;
    if (place > at && place <= turn.text.size()) {
      words(guard(std::string_view(turn.text).substr(at, place - at), control_tokens));
      at = place;
    }
    picture();
  }
  if (at < turn.text.size() || at == 0)
    words(guard(std::string_view(turn.text).substr(at), control_tokens));
}

// Parts are what multimodal templates read; text-only templates get the image tokens in the text.
Json chat_context(const LoadedModel& loaded, std::span<const ChatTurn> turns, ContentForm form) {
  Json messages = Json::array();
  for (const ChatTurn& turn : turns) {
    Json message = {{"role", turn.role}};
    if (turn.pictures.empty()) {
      message["content"] = guard(turn.text, loaded.control_tokens);
    } else if (form == ContentForm::kParts) {
      Json content = Json::array();
      write_parts(
          turn, loaded.control_tokens,
          [&] {
            content.push_back({{"type", "image"}});
          },
          [&](std::string text) {
            content.push_back({{"type", "text"}, {"text", std::move(text)}});
          });
      message["content"] = std::move(content);
    } else {
      const PictureSpec& spec = *loaded.model.pictures;
      std::string content;
      write_parts(
          turn, loaded.control_tokens,
          [&] {
            content += spec.picture_mark.empty() ? spec.before + spec.image_token + spec.after
                                                 : spec.picture_mark;
          },
          [&](std::string text) { content += text; });
      message["content"] = std::move(content);
    }
    if (turn.tool_calls.is_array())
      message["tool_calls"] = guard_all(turn.tool_calls, loaded.control_tokens);
    if (!turn.tool_name.empty())
      message["name"] = guard(turn.tool_name, loaded.control_tokens);
    if (!turn.tool_call_id.empty())
      message["tool_call_id"] = guard(turn.tool_call_id, loaded.control_tokens);
    messages.push_back(std::move(message));
  }
  Json context = {{"messages", std::move(messages)}, {"add_generation_prompt", true}};
  if (!turns.empty() && turns[0].tools.is_array() && !turns[0].tools.empty())
    context["tools"] = guard_all(turns[0].tools, loaded.control_tokens);
  const auto token_text = [&](std::optional<TokenId> id) {
    return id ? std::string(loaded.tokenizer.piece(*id)) : std::string();
  };
  context["bos_token"] = token_text(loaded.tokenizer.bos());
  context["eos_token"] = token_text(loaded.tokenizer.eos());
  return context;
}

} // namespace

bool template_knows_tools(const LoadedModel& loaded) {
  constexpr const char* kName = "pinhole_example_tool";
  ChatTurn turn{"user", "x", {}};
  turn.tools =
      Json::array({{{"type", "function"},
                    {"function", {{"name", kName}, {"parameters", {{"type", "object"}}}}}}});
  const auto rendered = render_chat(loaded, {&turn, 1});
  return rendered && rendered->find(kName) != std::string::npos;
}

Result<std::string> render_chat(const LoadedModel& loaded, std::span<const ChatTurn> turns) {
  size_t pictures = 0;
  for (const ChatTurn& turn : turns)
    pictures += turn.pictures.size();
  if (pictures > 0 && !loaded.model.pictures) {
    return fail(ErrorCode::kUnsupported, "this model has no vision part", loaded.files.text.path(),
                "give its projector with --mmproj, or ask without a picture");
  }
  auto rendered = loaded.chat_template.render(chat_context(loaded, turns, ContentForm::kParts));
  if (pictures == 0)
    return rendered;
  const std::string& image_token = loaded.model.pictures->template_token();
  if (rendered && count(*rendered, image_token) == pictures)
    return rendered;
  auto plain = loaded.chat_template.render(chat_context(loaded, turns, ContentForm::kText));
  if (plain && count(*plain, image_token) == pictures)
    return plain;
  if (!rendered)
    return rendered;
  return fail(ErrorCode::kInvalidInput,
              fmt::format("the chat template wrote {} of {} image tokens",
                          count(*rendered, image_token), pictures),
              loaded.files.text.path());
}

Result<std::vector<TokenId>> encode_prompt(const LoadedModel& loaded, std::string_view text,
                                           std::span<const int64_t> picture_tokens,
                                           std::span<const int64_t> row_tokens) {
  const std::string expanded = expand_picture_marks(loaded, text);
  std::string_view rendered = expanded;
  std::vector<TokenId> ids;
  size_t picture = 0;
  bool first = true;
  while (first || !rendered.empty()) {
    const size_t end = std::min(rendered.size(), rendered.find(kSplitMark));
    // Templates write the BOS token themselves; a tokenizer that adds one must not double it.
    std::string_view piece = rendered.substr(0, end);
    const auto bos = loaded.tokenizer.bos();
    const bool has_bos = bos && piece.starts_with(loaded.tokenizer.piece(*bos));
    for (const TokenId id : loaded.tokenizer.encode(piece, true, first && !has_bos)) {
      if (id != loaded.image_token_id) {
        ids.push_back(id);
        continue;
      }
      if (picture == picture_tokens.size()) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("the prompt has more image tokens than the {} pictures",
                                picture_tokens.size()));
      }
      const int64_t count = picture_tokens[picture];
      const bool in_rows = loaded.row_break_id >= 0 && picture < row_tokens.size();
      for (int64_t i = 0; i < count; ++i) {
        if (in_rows && i > 0 && i % row_tokens[picture] == 0)
          ids.push_back(loaded.row_break_id);
        ids.push_back(id);
      }
      ++picture;
    }
    rendered.remove_prefix(std::min(rendered.size(), end + kSplitMark.size()));
    first = false;
  }
  if (picture != picture_tokens.size()) {
    return fail(ErrorCode::kInvalidInput,
                fmt::format("the prompt has {} image tokens for {} pictures", picture,
                            picture_tokens.size()));
  }
  return ids;
}

Result<Prompt> place_pictures(const LoadedModel& loaded, std::span<const TokenId> ids,
                              std::span<const PatchGrid> grids) {
  Prompt prompt;
  prompt.tokens.reserve(ids.size());
  prompt.is_cross = loaded.model.cache.has_cross();
  size_t picture = 0;
  int32_t position = 0;
  for (size_t i = 0; i < ids.size();) {
    if (ids[i] != loaded.image_token_id || grids.empty()) {
      prompt.tokens.push_back({ids[i], {position, position, position}});
      ++position;
      ++i;
      continue;
    }
    if (picture == grids.size()) {
      return fail(ErrorCode::kInvalidInput, "the prompt has more picture tokens than its pictures");
    }
    const PatchGrid& grid = grids[picture++];
    const int64_t height = prompt.is_cross ? 1 : grid.height / grid.merge;
    const int64_t width = prompt.is_cross ? 1 : grid.width / grid.merge;
    for (int64_t t = 0; t < height * width; ++t, ++i) {
      if (loaded.row_break_id >= 0 && t > 0 && t % width == 0 && i < ids.size() &&
          ids[i] == loaded.row_break_id) {
        prompt.tokens.push_back({ids[i], {position, position, position}});
        ++position;
        ++i;
      }
      if (i >= ids.size() || ids[i] != loaded.image_token_id) {
        return fail(ErrorCode::kInvalidInput,
                    fmt::format("picture {} needs {} image tokens, the prompt has {}", picture,
                                height * width, t));
      }
      PromptToken token{ids[i], {position, position, position}};
      if (loaded.model.position_axes == 3) {
        // M-RoPE: all of a picture's tokens share a time; rows and columns count from it.
        token.position[1] = position + static_cast<int32_t>(t / width);
        token.position[2] = position + static_cast<int32_t>(t % width);
      } else {
        ++position;
      }
      prompt.tokens.push_back(token);
      ++prompt.picture_tokens;
    }
    if (loaded.model.position_axes == 3)
      position += static_cast<int32_t>(std::max(height, width));
  }
  if (picture != grids.size()) {
    return fail(
        ErrorCode::kInvalidInput,
        fmt::format("the prompt has places for {} pictures, {} were given", picture, grids.size()));
  }
  prompt.next_position = position;
  return prompt;
}

void bind_pictures(Prompt& prompt, TokenId image_token_id, std::span<const PatchGrid> grids,
                   std::span<const PlacedPicture> pictures) {
  size_t picture = 0;
  int64_t row = 0;
  for (PromptToken& token : prompt.tokens) {
    if (token.id != image_token_id || picture == pictures.size())
      continue;
    std::memcpy(&token.picture_key, pictures[picture].digest.data(), sizeof token.picture_key);
    if (prompt.is_cross) {
      ++picture;
      continue;
    }
    token.feature_row = pictures[picture].first_row + static_cast<int32_t>(row);
    if (++row == grids[picture].tokens()) {
      ++picture;
      row = 0;
    }
  }
}

Result<std::vector<TokenId>> count_prompt(const LoadedModel& loaded,
                                          std::span<const ChatTurn> turns,
                                          std::span<const Picture> pictures) {
  PINHOLE_TRY(const std::string rendered, render_chat(loaded, turns));
  std::vector<int64_t> tokens;
  std::vector<int64_t> row_tokens;
  for (const ChatTurn& turn : turns) {
    for (const size_t i : turn.pictures) {
      tokens.push_back(pictures[i].image_tokens);
      row_tokens.push_back(pictures[i].grid.width / pictures[i].grid.merge);
    }
  }
  return encode_prompt(loaded, rendered, tokens, row_tokens);
}

Result<PreparedPrompt> prepare_prompt(const LoadedModel& loaded, std::span<const ChatTurn> turns,
                                      std::span<const Picture> pictures) {
  PreparedPrompt out;
  PINHOLE_TRY(const std::vector<TokenId> ids, count_prompt(loaded, turns, pictures));
  for (const ChatTurn& turn : turns) {
    for (const size_t i : turn.pictures) {
      for (int64_t piece = 0; piece < pictures[i].pieces; ++piece) {
        out.pieces.push_back({i, piece});
        out.grids.push_back(pictures[i].grid);
      }
    }
  }
  PINHOLE_TRY(out.prompt, place_pictures(loaded, ids, out.grids));
  return out;
}

} // namespace pinhole
