# To be included after the last find_package. The targets that the ROS wheels export name the include directories of the
# machine that built the wheels, under /opt/python; CMake refuses directories that do not exist. Installed distributions
# have none of them.
get_property(imported_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS imported_targets)
  get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(directories)
    list(FILTER directories EXCLUDE REGEX "^/opt/python/")
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
  endif()
endforeach()
