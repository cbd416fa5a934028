#include "file/remote_file.h"

#include "file/folder.h"
#include "file/gguf_reader.h"
#include "file/hf_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace pinhole {

namespace {

constexpr uint64_t kFirstBytes = 1u << 20;
// A vocabulary of a million tokens with its merges has some 60 MiB.
constexpr uint64_t kMaxHeaderBytes = 256u << 20;

// Reads one file's header.
class HeaderFetch {
 public:
  HeaderFetch(HttpClient& client, const Url& url, const FetchProgress& progress)
      : client_(client), url_(url), progress_(progress) {}

  Result<MappedFile> run() {
    while (!complete_) {
      PINHOLE_CHECK(client_.get(url_, have_, want_,
                                [&](std::span<const std::byte> bytes, uint64_t file_bytes) {
                                  return take(bytes, file_bytes);
                                }));
      if (have_ == 0)
        return fail(ErrorCode::kInvalidInput, "the file is empty", url_.shown());
    }
    return std::move(file_);
  }

 private:
  // The memory file; the descriptor is the mapping's.
  Status create(uint64_t file_bytes) {
    fd_ = ::memfd_create("pinhole-header", MFD_CLOEXEC);
    if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(file_bytes)) != 0) {
      const int code = errno;
      if (fd_ >= 0)
        ::close(fd_);
      return fail(
          ErrorCode::kIo,
          fmt::format("cannot make a memory file of {} bytes: {}", file_bytes, std::strerror(code)),
          url_.shown());
    }
    PINHOLE_TRY(file_, MappedFile::adopt(fd_, url_.shown()));
    return {};
  }

  Status write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(have_));
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0) {
        return fail(ErrorCode::kIo, fmt::format("cannot keep the header: {}", std::strerror(errno)),
                    url_.shown());
      }
      have_ += static_cast<uint64_t>(n);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }

  // False when the header is complete.
  Result<bool> take(std::span<const std::byte> bytes, uint64_t file_bytes) {
    if (have_ == 0 && fd_ < 0)
      PINHOLE_CHECK(create(file_bytes));
    if (file_bytes != file_.bytes().size()) {
      return fail(
          ErrorCode::kIo,
          fmt::format("the file had {} bytes, now it has {}", file_.bytes().size(), file_bytes),
          url_.shown(), "it was changed meanwhile: try again");
    }
    want_ = std::min(want_, file_bytes);
    PINHOLE_CHECK(write(bytes));
    if (progress_)
      progress_(std::min(have_, want_), want_);
    if (have_ < want_)
      return true;
    PINHOLE_TRY(const GgufExtent extent,
                GgufReader::header_extent(file_.bytes().first(have_), file_bytes, url_.shown()));
    complete_ = extent.complete;
    if (complete_)
      return false;
    if (extent.bytes > kMaxHeaderBytes) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("its header goes on to byte {} at least, the limit is {}",
                              extent.bytes, kMaxHeaderBytes),
                  url_.shown());
    }
    want_ = std::min({std::max(2 * have_, extent.bytes), kMaxHeaderBytes, file_bytes});
    return true;
  }

  HttpClient& client_;
  const Url& url_;
  const FetchProgress& progress_;
  MappedFile file_;
  int fd_ = -1;
  uint64_t have_ = 0, want_ = kFirstBytes;
  bool complete_ = false;
};

Result<std::string> fetch_text(HttpClient& client, const Url& url, uint64_t max_bytes) {
  std::string text;
  const auto take = [&](std::span<const std::byte> bytes, uint64_t file_bytes) -> Result<bool> {
    if (file_bytes > max_bytes) {
      return fail(ErrorCode::kTooLarge,
                  fmt::format("{} bytes, the limit for this file is {}", file_bytes, max_bytes),
                  url.shown());
    }
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  };
  PINHOLE_CHECK(client.get(url, 0, max_bytes, take));
  return text;
}

// All parts of a split model, or the file alone.
Result<std::vector<Url>> part_urls(const Url& url) {
  std::vector<Url> urls;
  const auto split = parse_split_name(url.path());
  if (!split) {
    urls.push_back(url);
    return urls;
  }
  if (split->count > kMaxGgufParts) {
    return fail(ErrorCode::kTooLarge,
                fmt::format("its name says {} parts, the limit is {}", split->count, kMaxGgufParts),
                url.shown());
  }
  for (uint32_t no = 1; no <= split->count; ++no) {
    PINHOLE_TRY(Url part, url.with_path(split_part_path(split->stem, no, split->count)));
    urls.push_back(std::move(part));
  }
  return urls;
}

} // namespace

Result<ModelFile> open_remote(const std::string& name, const FetchProgress& progress) {
  PINHOLE_TRY(const Url url, Url::parse(name));
  HttpClient client;
  const std::string lower = to_lower(url.path());
  if (lower.ends_with(".json")) {
    PINHOLE_TRY(const std::string text, fetch_text(client, url, kMaxConfigBytes));
    return HfReader::read_config_text(text, url.shown());
  }
  if (lower.ends_with(".safetensors")) {
    return fail(ErrorCode::kUnsupported, "safetensors are not read over the network", url.shown(),
                "give the address of the config.json beside it, or of a .gguf");
  }
  PINHOLE_TRY(const std::vector<Url> urls, part_urls(url));
  std::vector<std::string> names;
  for (const Url& part : urls)
    names.push_back(part.shown());
  return GgufReader::open_parts(url.shown(), names, [&](size_t idx) {
    return HeaderFetch(client, urls[idx], progress).run();
  });
}

} // namespace pinhole
