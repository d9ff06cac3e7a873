from lyceum.engine.child.process import main

main()
