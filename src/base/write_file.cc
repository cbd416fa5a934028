#include "base/write_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

namespace pinhole {

namespace {

tl::unexpected<Error> failed(std::string_view what, const std::string& path, int code) {
  return fail(ErrorCode::kIo, fmt::format("{}: {}", what, std::strerror(code)), path);
}

// 0, or the errno of the first step that failed. Closes `fd`.
int write_and_sync(int fd, std::string_view content) {
  int code = 0;
  while (!content.empty() && code == 0) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n >= 0)
      content.remove_prefix(static_cast<size_t>(n));
    else if (errno != EINTR)
      code = errno;
  }
  if (code == 0 && ::fsync(fd) != 0)
    code = errno;
  if (::close(fd) != 0 && code == 0)
    code = errno;
  return code;
}

} // namespace

Status write_file(const std::string& path, std::string_view content) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty())
    std::filesystem::create_directories(folder, error);
  if (error)
    return failed("the folder cannot be made", folder.string(), error.value());
  std::string aside = path + "." + std::string(6, 'X'); // mkstemp fills them in
  const int fd = ::mkstemp(aside.data());
  if (fd < 0)
    return failed("cannot write beside it", path, errno);
  int code = write_and_sync(fd, content);
  if (code == 0 && ::rename(aside.c_str(), path.c_str()) != 0)
    code = errno;
  if (code == 0)
    return {};
  ::unlink(aside.c_str());
  return failed("cannot be written", path, code);
}

} // namespace pinhole
