"""Ansible's inventories: INI, YAML, programs, and folders of them; by Ansible's own loader where it is installed.

`source.read` is the way in. Whoever loads an inventory, it becomes a `tree.Tree`, and `hosts` makes hosts of that.
"""
