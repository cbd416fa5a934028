# One translation unit per row of src/kernels/isa.def, each with its own flags. Rule: such a unit includes
# only intrinsics, quant block headers and kernels/*.inl (a std container instantiated here could be the
# copy that the linker keeps for every CPU). PINHOLE_ISA_LIST, when set, limits the rows.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS src/kernels/isa.def)
file(GLOB kernel_sources CONFIGURE_DEPENDS src/kernels/*.cc)
list(FILTER kernel_sources EXCLUDE REGEX "/isa_[a-z0-9_]*\\.cc$")
file(STRINGS src/kernels/isa.def isa_rows REGEX "^PINHOLE_ISA\\(")
# Debug presets still optimise kernels: a golden test should take seconds. Sanitizers get less, as
# instrumented and unrolled loops take minutes to compile.
set(kernel_options -O3)
if(PINHOLE_SANITIZE)
  set(kernel_options -O1)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 warns inside its own AVX-512 intrinsics (their undefined operands): GCC PR 105593.
  list(APPEND kernel_options -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
set(isa_definitions "")
foreach(row IN LISTS isa_rows)
  string(REGEX MATCH "\\(([a-z0-9_]+), \"([^\"]*)\", [^\"]*, \"([^\"]*)\"\\)" matched "${row}")
  if(NOT matched)
    message(FATAL_ERROR "src/kernels/isa.def: not PINHOLE_ISA(name, \"arch\", needs, \"flags\"): ${row}")
  endif()
  set(isa ${CMAKE_MATCH_1})
  set(arch "${CMAKE_MATCH_2}")
  string(REPLACE " " ";" isa_flags "${CMAKE_MATCH_3}")
  set(have 0)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(${arch})$"
     AND (NOT PINHOLE_ISA_LIST OR isa STREQUAL "scalar" OR isa IN_LIST PINHOLE_ISA_LIST))
    set(have 1)
    set_source_files_properties(src/kernels/isa_${isa}.cc PROPERTIES
      COMPILE_OPTIONS "${isa_flags};${kernel_options}")
    list(APPEND kernel_sources src/kernels/isa_${isa}.cc)
  endif()
  list(APPEND isa_definitions PINHOLE_HAVE_ISA_${isa}=${have})
endforeach()
add_library(ph_kernels STATIC ${kernel_sources})
target_compile_definitions(ph_kernels PRIVATE ${isa_definitions})
target_include_directories(ph_kernels PUBLIC ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(ph_kernels PUBLIC ph_quant)
