// SHA-256 through libcrypto: keys of the picture and prefix caches, checks of downloads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pinhole {

using Sha256Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::span<const std::byte> bytes);
  void update(const void* data, size_t size) {
    update({static_cast<const std::byte*>(data), size});
  }
  Sha256Digest finish();

 private:
  void* context_; // EVP_MD_CTX
};

std::string to_hex(const Sha256Digest& digest);

} // namespace pinhole
